import { join, resolve } from 'node:path'
import { type BackendName, createBackend } from '@fireq/kernels'
import pc from 'picocolors'
import type { Experiment, Settings } from '../experiment.js'
import { describeProvenance, provenanceOf } from '../report/provenance.js'
import type { Report } from '../report/report.js'
import { writeReport } from '../report/write.js'
import { createProgress } from '../terminal/progress.js'
import { terminalTable } from '../terminal/table.js'

export interface RunOptions extends Settings {
  readonly backend: BackendName | 'auto'
  readonly threads?: number
  readonly out: string
}

/** Runs an experiment, shows its tables on stdout, and writes its files. */
export async function runExperiment(
  experiment: Experiment,
  { backend: backendName, threads, out, ...settings }: RunOptions,
  signal: AbortSignal,
): Promise<void> {
  const began = new Date()
  const progress = createProgress()
  using backend = createBackend(backendName, { threads, onNotice: (line) => progress.note(line) })
  let report: Report
  try {
    const lab = { backend, settings, cacheDir: join(resolve(out), 'cache'), progress, signal }
    report = await experiment.run(lab)
  } finally {
    progress.stop()
  }
  const provenance = provenanceOf(experiment.name, backend, began)
  const files = await writeReport(report, provenance, out)
  process.stdout.write(`${[...show(report), pc.dim(describeProvenance(provenance)), '', ...files].join('\n')}\n`)
}

/** The report for a terminal: texts and tables. */
function show({ title, summary, caveats, sections }: Report): string[] {
  return [
    '',
    pc.bold(title),
    ...summary,
    ...caveats.map((caveat) => pc.yellow(caveat)),
    ...sections.flatMap(({ title: heading, tables = [] }) => [
      '',
      pc.bold(heading),
      ...tables.map((t) => terminalTable(t)),
    ]),
    '',
  ]
}
