import { existsSync } from 'node:fs'
import { join } from 'node:path'

const repository = join(import.meta.dirname, '../../..')

/** Where test data too large or too encumbered for the repository lies: FIREQ_TEST_DATA, or `shared/data` beside it. */
const folder = process.env.FIREQ_TEST_DATA ?? join(repository, '../shared/data')

/** The path of a file or folder of the test data, or undefined where it is absent: then the test is skipped. */
export function testData(...path: string[]): string | undefined {
  const full = join(folder, ...path)
  return existsSync(full) ? full : undefined
}

/** A path within the repository. */
export function repositoryFile(...path: string[]): string {
  return join(repository, ...path)
}
