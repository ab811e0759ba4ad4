import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { writeFileAtomic } from '@fireq/formats'
import { codeIdentity, hashOf } from '../pipeline/identity.js'
import type { Score } from './score.js'

/** Keeps scores by everything they depend on, so that an interrupted experiment goes on where it was. */
export class ScoreCache {
  readonly #dir: string

  constructor(cacheDir: string) {
    this.#dir = join(cacheDir, 'scores')
  }

  /** @param inputs what the score depends on, beside the code */
  async get(inputs: readonly string[], compute: () => Promise<Score>): Promise<Score> {
    const path = join(this.#dir, `${hashOf(await codeIdentity(), ...inputs)}.json`)
    const kept = await readFile(path, 'utf8').catch(() => undefined)
    if (kept !== undefined) return JSON.parse(kept) as Score
    const score = await compute()
    await mkdir(this.#dir, { recursive: true })
    await writeFileAtomic(path, `${JSON.stringify(score)}\n`, true)
    return score
  }
}
