import { spawn } from 'node:child_process'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { openModel } from '@fireq/formats'
import { seededUniform } from '@fireq/model'
import { build } from 'tsup'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { digests } from './digests.js'
import { writeTinyModel } from './tiny-model.js'

let dir: string
let child: string
let source: string
let expected: Record<string, string>
let events: number

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'fireq-kill-'))
  source = await writeTinyModel(join(dir, 'tiny'))
  // The sources as one file that a plain node runs.
  await build({
    config: false,
    silent: true,
    entry: { child: fileURLToPath(new URL('quantize-child.ts', import.meta.url)) },
    outDir: join(dir, 'bundle'),
    outExtension: () => ({ js: '.mjs' }),
    format: 'esm',
    target: 'node20',
    noExternal: [/./],
    esbuildOptions: (options) => {
      options.conditions = ['fireq-source']
    },
  })
  child = join(dir, 'bundle', 'child.mjs')
  const whole = join(dir, 'whole')
  const result = await run(whole)
  expect(result).toMatchObject({ code: 0, errors: '' })
  events = result.events
  expected = await digests(whole)
})
afterAll(() => rm(dir, { recursive: true }))

/** Runs the child; `until` decides when to kill it, given the events seen so far, and after how many more milliseconds. */
function run(out: string, until: (events: number) => number | undefined = () => undefined) {
  return new Promise<{ code: number | null; signal: string | null; events: number; errors: string }>((resolve) => {
    const process = spawn('node', [child, source, out], { stdio: ['ignore', 'pipe', 'pipe'] })
    const seen = { events: 0, errors: '' }
    process.stderr.on('data', (data) => {
      seen.errors += data
    })
    process.stdout.on('data', async (data: Buffer) => {
      for (const byte of data) {
        if (byte !== 10) continue
        const delay = until(++seen.events)
        if (delay === undefined) continue
        if (delay > 0) await setTimeout(delay)
        process.kill('SIGKILL')
      }
    })
    process.on('close', (code, signal) => resolve({ code, signal, ...seen }))
  })
}

describe('a run that is killed (SIGKILL)', () => {
  it('never leaves a model that loads, and goes on to files that are the same to the bit', async () => {
    const random = seededUniform(20250522)
    let kills = 0
    for (let trial = 0; trial < 3; trial++) {
      const out = join(dir, `out-${trial}`)
      for (let round = 0; round < 3; round++) {
        const stopAt = 1 + Math.floor(random() * events * 0.6)
        const delay = Math.floor(random() * 4)
        const { signal } = await run(out, (seen) => (seen === stopAt ? delay : undefined))
        if (signal !== 'SIGKILL') break
        kills++
        await expect(openModel(out)).rejects.toThrow('Expected a model directory')
      }
      if (!(await readdir(dir)).includes(`out-${trial}`)) expect(await run(out)).toMatchObject({ code: 0, errors: '' })
      expect(await digests(out)).toEqual(expected)
    }
    expect(kills).toBeGreaterThan(4)
    expect((await readdir(dir)).filter((name) => /partial|states/.test(name))).toEqual([])
  })
})
