import { type Backend, type BackendStatus, backendReport, createBackend } from '@fireq/kernels'

const report: readonly BackendStatus[] = backendReport()

/** Every backend that this machine can run, for `describe.each`. */
export const backends: readonly { name: string; backend: Backend }[] = report
  .filter(({ usable }) => usable)
  .map(({ name }) => ({ name, backend: createBackend(name) }))

/** One that can do more than a few tokens in a test's time. */
export const fastBackend: Backend | undefined = backends.find(({ name }) => name !== 'reference')?.backend

for (const { name, usable, detail } of report)
  if (!usable) console.log(`skipped on the ${name} backend: ${detail.replace(/\s*\n\s*/g, ' ')}`)
