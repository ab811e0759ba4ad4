import { stripVTControlCharacters } from 'node:util'
import { describe, expect, it } from 'vitest'
import { toHtml } from '../src/report/html.js'
import { toMarkdown } from '../src/report/markdown.js'
import type { Provenance } from '../src/report/provenance.js'
import type { Report } from '../src/report/report.js'
import { palette } from '../src/report/theme.js'
import { terminalTable } from '../src/terminal/table.js'

const provenance: Provenance = {
  experiment: 'sample',
  command: 'fireq-repro sample --model "<a>"',
  date: '2025-01-02T03:04:05.000Z',
  seconds: 1.5,
  commit: '0123456789abcdef',
  dirty: true,
  machine: { cpu: 'a processor', cores: 2, memoryGiB: 8, node: 'v20.17.0', load: 1.5 },
  backend: { name: 'reference', description: 'slow' },
}

const report: Report = {
  title: 'A <sample> & more',
  summary: ['What was done.'],
  caveats: ['Synthetic.'],
  sections: [
    {
      title: 'Numbers',
      tables: [
        {
          columns: [
            { key: 'label', title: 'row' },
            { key: 'a', title: 'perplexity', group: 'together', digits: 2 },
            { key: 'b', title: 'KL', group: 'together', digits: 3 },
          ],
          rows: [
            { label: 'one | bar', a: 5.471, b: { mean: 0.0123, standardError: 0.0004 } },
            { label: 'two', a: 6, b: undefined },
          ],
        },
      ],
      figures: [
        {
          title: 'A "plot"',
          caption: 'What it shows.',
          spec: {
            data: { values: [{ x: 1, y: 2, s: 'p' }] },
            mark: 'line',
            encoding: {
              x: { field: 'x', type: 'quantitative' },
              y: { field: 'y', type: 'quantitative' },
              color: { field: 's', type: 'nominal' },
            },
          },
        },
      ],
      details: [{ title: 'Recipe', text: '{"a": "<b>"}' }],
    },
  ],
  settings: {},
  data: {},
}

describe('the HTML page', () => {
  it('loads nothing', async () => {
    const html = await toHtml(report, provenance)
    expect(html).not.toMatch(/https?:/)
    expect(html).not.toMatch(/<(script|link|img|iframe|object|embed)\b|@import|url\(/)
    expect(html.match(/<svg\b/g)).toHaveLength(1)
  })

  it('has every row, text and the provenance, escaped', async () => {
    const html = await toHtml(report, provenance)
    expect(html).toContain('<h1>A &lt;sample&gt; &amp; more</h1>')
    expect(html).toContain('<td>one | bar</td><td class="number">5.47</td><td class="number">0.012 ± 0.000</td>')
    expect(html).toContain('<td>two</td><td class="number">6.00</td><td class="number">–</td>')
    expect(html).toContain('<th colspan="2" class="group">together</th>')
    expect(html).toContain('{&quot;a&quot;: &quot;&lt;b&gt;&quot;}')
    expect(html).toContain('commit 0123456789ab with local changes, 2 × a processor')
    expect(html).toContain('aria-label="A &quot;plot&quot;"')
  })

  it('takes the colours of its plots from the style sheet, in light and dark', async () => {
    const html = await toHtml(report, provenance)
    const used = new Set([...html.matchAll(/var\(--([\w-]+)\)/g)].map(([, name]) => name))
    expect(used).toContain('series-1')
    for (const name of used) {
      expect(Object.keys(palette.light)).toContain(name)
      expect(Object.keys(palette.dark)).toContain(name)
    }
    const [svg] = /<svg[\s\S]*<\/svg>/.exec(html)!
    expect(svg).not.toMatch(/(fill|stroke)="#/)
  })
})

it('Markdown has the same table, with bars escaped', () => {
  expect(toMarkdown(report, provenance)).toContain(
    [
      '| row | perplexity (together) | KL (together) |',
      '| --- | ---: | ---: |',
      '| one \\| bar | 5.47 | 0.012 ± 0.000 |',
      '| two | 6.00 | – |',
    ].join('\n'),
  )
})

it('the terminal table joins columns under one heading', () => {
  const table = terminalTable(report.sections[0].tables![0])
  const lines = table.split('\n')
  expect(lines[1]).toMatch(/│\s+│\s+together\s+│/)
  expect(table).toMatch(/│ one \| bar │\s+5\.47 │ 0\.012 ± 0\.000 │/)
  expect(new Set(lines.map((line) => stripVTControlCharacters(line).length)).size).toBe(1)
})
