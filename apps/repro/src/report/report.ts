import type { TopLevelSpec } from 'vega-lite'

/** What an experiment found, for people; written as a terminal table, Markdown, HTML and JSON. */
export interface Report {
  readonly title: string
  /** What was done, a paragraph each. */
  readonly summary: readonly string[]
  /** What a reader must know before believing a number. */
  readonly caveats: readonly string[]
  readonly sections: readonly Section[]
  /** The settings as they were used, defaults filled in. */
  readonly settings: Readonly<Record<string, unknown>>
  /** Every number, for programs: goes into the JSON as it is. */
  readonly data: unknown
}

export interface Section {
  readonly title: string
  readonly text?: readonly string[]
  readonly tables?: readonly Table[]
  readonly figures?: readonly Figure[]
  /** Long texts, folded away. */
  readonly details?: readonly { readonly title: string; readonly text: string }[]
}

export interface Table {
  readonly caption?: string
  readonly columns: readonly Column[]
  readonly rows: readonly Row[]
}

export interface Column {
  readonly key: string
  readonly title: string
  /** Columns under one heading stand together. */
  readonly group?: string
  /** Digits after the point; numbers without it are shown as they are. */
  readonly digits?: number
}

export type Cell = string | number | Uncertain | undefined
export type Row = Readonly<Record<string, Cell>>

/** A mean and its standard error, where it can be told. */
export interface Uncertain {
  readonly mean: number
  readonly standardError?: number
}

/** A plot: a Vega-Lite specification whose colours are CSS variables (see `theme.ts`). */
export interface Figure {
  readonly title: string
  readonly caption: string
  readonly spec: TopLevelSpec
}

/** A cell as text: "–" where there is nothing to say. */
export function formatCell(cell: Cell, { digits }: Pick<Column, 'digits'>): string {
  if (cell === undefined) return '–'
  if (typeof cell === 'string') return cell
  if (typeof cell === 'number') return digits === undefined ? String(cell) : cell.toFixed(digits)
  const { mean, standardError } = cell
  if (standardError === undefined) return formatCell(mean, { digits })
  return `${formatCell(mean, { digits })} ± ${formatCell(standardError, { digits })}`
}

export function isNumeric({ rows }: Table, { key }: Column): boolean {
  return rows.every((row) => typeof row[key] !== 'string')
}
