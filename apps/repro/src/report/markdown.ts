import { describeProvenance, type Provenance } from './provenance.js'
import { formatCell, isNumeric, type Report, type Table } from './report.js'

/** The report as Markdown: texts and tables, no plots. */
export function toMarkdown(report: Report, provenance: Provenance): string {
  const blocks = [
    `# ${report.title}`,
    ...report.summary,
    ...report.caveats.map((caveat) => `> ${caveat}`),
    ...report.sections.flatMap(({ title, text = [], tables = [] }) => [
      `## ${title}`,
      ...text,
      ...tables.flatMap((table) => [...(table.caption ? [table.caption] : []), markdownTable(table)]),
    ]),
    `\`${provenance.command}\`: ${describeProvenance(provenance)}.`,
  ]
  return `${blocks.join('\n\n')}\n`
}

export function markdownTable(table: Table): string {
  const { columns, rows } = table
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`
  return [
    line(columns.map(({ title, group }) => (group ? `${title} (${group})` : title))),
    line(columns.map((column) => (isNumeric(table, column) ? '---:' : '---'))),
    ...rows.map((row) => line(columns.map((column) => formatCell(row[column.key], column).replaceAll('|', '\\|')))),
  ].join('\n')
}
