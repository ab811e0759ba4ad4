import { type Backend, createBackend } from '@fireq/kernels'
import { oneLine } from './errors.js'
import type { BackendOptions, GlobalOptions } from './options.js'
import { note } from './terminal/output.js'

/** The backend that was asked for, else what FIREQ_BACKEND says, else the fastest there is; which one is said aloud. */
export function openBackend(options: BackendOptions & GlobalOptions): Backend {
  const { backend: name = 'auto', threads } = options
  const backend = createBackend(name, { threads, onNotice: (line) => note(oneLine(line)) })
  note(`backend ${backend.name}: ${backend.description}`, options)
  if (threads !== undefined && backend.name !== 'cpu') note(`--threads changes nothing on ${backend.name}`, options)
  return backend
}
