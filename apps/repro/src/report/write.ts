import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { writeFileAtomic } from '@fireq/formats'
import { toHtml } from './html.js'
import { toMarkdown } from './markdown.js'
import type { Provenance } from './provenance.js'
import type { Report } from './report.js'

/** Writes `<experiment>-<date>` as JSON, Markdown and HTML; returns their paths. */
export async function writeReport(report: Report, provenance: Provenance, outDir: string): Promise<string[]> {
  const stamp = provenance.date.slice(0, 19).replaceAll(':', '').replace('T', '-')
  const base = join(outDir, `${provenance.experiment}-${stamp}`)
  const { title, summary, caveats, settings, data } = report
  const json = { ...provenance, title, summary, caveats, settings, ...(data as object) }
  const files = {
    [`${base}.json`]: `${JSON.stringify(json, null, 2)}\n`,
    [`${base}.md`]: toMarkdown(report, provenance),
    [`${base}.html`]: await toHtml(report, provenance),
  }
  await mkdir(outDir, { recursive: true })
  for (const [path, content] of Object.entries(files)) await writeFileAtomic(path, content, true)
  return Object.keys(files)
}
