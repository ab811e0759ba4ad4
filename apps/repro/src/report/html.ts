import { drawFigure } from './plot.js'
import { describeProvenance, type Provenance } from './provenance.js'
import { type Column, type Figure, formatCell, isNumeric, type Report, type Section, type Table } from './report.js'
import { styleSheet } from './style.js'

/** One page that needs nothing else: style, plots and numbers are in it. */
export async function toHtml(report: Report, provenance: Provenance): Promise<string> {
  const sections = await Promise.all(report.sections.map(section))
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escapeHtml(report.title)}</title>
<style>${styleSheet()}</style>
</head>
<body>
<main>
<header>
<h1>${escapeHtml(report.title)}</h1>
${paragraphs(report.summary)}
${report.caveats.map((caveat) => `<p class="caveat">${escapeHtml(caveat)}</p>`).join('\n')}
</header>
${sections.join('\n')}
<footer>
<p><code>${escapeHtml(provenance.command)}</code></p>
<p>${escapeHtml(describeProvenance(provenance))}</p>
</footer>
</main>
</body>
</html>
`
}

async function section({ title, text = [], tables = [], figures = [], details = [] }: Section): Promise<string> {
  const drawn = await Promise.all(figures.map(figure))
  return `<section>
<h2>${escapeHtml(title)}</h2>
${paragraphs(text)}
${tables.map(table).join('\n')}
${drawn.join('\n')}
${details.map((detail) => `<details><summary>${escapeHtml(detail.title)}</summary><pre>${escapeHtml(detail.text)}</pre></details>`).join('\n')}
</section>`
}

async function figure(plot: Figure): Promise<string> {
  return `<figure>
<h3>${escapeHtml(plot.title)}</h3>
${await drawFigure(plot)}
<figcaption>${escapeHtml(plot.caption)}</figcaption>
</figure>`
}

function table(data: Table): string {
  const { columns, rows, caption } = data
  const align = (column: Column): string => (isNumeric(data, column) ? ' class="number"' : '')
  const cells = (row: Table['rows'][number]): string =>
    columns.map((column) => `<td${align(column)}>${escapeHtml(formatCell(row[column.key], column))}</td>`).join('')
  return `<div class="scroll"><table>
${caption ? `<caption>${escapeHtml(caption)}</caption>` : ''}
<thead>
${groups(columns)}<tr>${columns.map((column) => `<th${align(column)}>${escapeHtml(column.title)}</th>`).join('')}</tr>
</thead>
<tbody>
${rows.map((row) => `<tr>${cells(row)}</tr>`).join('\n')}
</tbody>
</table></div>`
}

/** The headings that columns share, in a row above theirs. */
function groups(columns: readonly Column[]): string {
  if (!columns.some(({ group }) => group)) return ''
  const spans: { title: string; count: number }[] = []
  columns.forEach(({ group = '' }, i) => {
    if (i > 0 && group !== '' && group === columns[i - 1].group) spans[spans.length - 1].count++
    else spans.push({ title: group, count: 1 })
  })
  const heads = spans.map(({ title, count }) => `<th colspan="${count}" class="group">${escapeHtml(title)}</th>`)
  return `<tr>${heads.join('')}</tr>\n`
}

function paragraphs(texts: readonly string[]): string {
  return texts.map((text) => `<p>${escapeHtml(text)}</p>`).join('\n')
}

function escapeHtml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
}
