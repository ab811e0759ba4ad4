import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** The repository's stand-in model: 8 M parameters, trained, with golden values from transformers beside it. */
export const STANDIN: string = fileURLToPath(new URL('../../../../models/standin/', import.meta.url))

/** A file of the larger test data, which a clone may lack: `FIREQ_TEST_DATA`, or `shared` beside the repository. */
export function testData(path: string): { path: string; missing: boolean } {
  const root = process.env.FIREQ_TEST_DATA ?? fileURLToPath(new URL('../../../../../shared', import.meta.url))
  return { path: `${root}/${path}`, missing: !existsSync(`${root}/${path}`) }
}
