import Table3 from 'cli-table3'
import pc from 'picocolors'
import { type Column, formatCell, isNumeric, type Table } from '../report/report.js'

/** A table for the terminal, columns under one heading joined. Cells wrap at `maxColumn` characters. */
export function terminalTable(table: Table, maxColumn = 84): string {
  const { columns, rows } = table
  const alignOf = (column: Column) => (isNumeric(table, column) ? 'right' : 'left') as 'left' | 'right'
  const widths = columns.map((column) => {
    const cells = rows.map((row) => formatCell(row[column.key], column).length)
    return Math.min(maxColumn, Math.max(column.title.length, ...cells)) + 2
  })
  const drawn = new Table3({
    colAligns: columns.map(alignOf),
    colWidths: widths,
    wordWrap: true,
    style: { head: [], border: pc.isColorSupported ? ['gray'] : [] },
  })
  if (columns.some(({ group }) => group)) drawn.push(groupRow(columns))
  drawn.push(columns.map(({ title }) => pc.bold(title)))
  for (const row of rows) drawn.push(columns.map((column) => formatCell(row[column.key], column)))
  return drawn.toString()
}

function groupRow(columns: readonly Column[]): { content: string; colSpan: number; hAlign: 'center' }[] {
  const spans: { content: string; colSpan: number; hAlign: 'center' }[] = []
  columns.forEach(({ group = '' }, i) => {
    if (i > 0 && group !== '' && group === columns[i - 1].group) spans[spans.length - 1].colSpan++
    else spans.push({ content: group, colSpan: 1, hAlign: 'center' })
  })
  return spans
}
