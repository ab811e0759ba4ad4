import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { calibrateModel, type LayerStatistics } from '@fireq/calibration'
import { type ModelSource, openModel } from '@fireq/formats'
import { ReferenceBackend } from '@fireq/kernels'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { writeModelWithOutliers } from '../src/outliers/inject-model.js'
import { defaultOutliers, drawOutliers } from '../src/outliers/outliers.js'
import { verifySameFunction } from '../src/outliers/verify.js'
import { readTokenFile } from '../src/subjects/tokens.js'
import { standinDir } from './support.js'

const backend = new ReferenceBackend()
let folder: string
let plain: ModelSource
let injected: ModelSource
let window: Int32Array

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fireq-outliers-'))
  plain = await openModel(standinDir)
  await writeModelWithOutliers(plain, defaultOutliers, join(folder, 'injected'))
  injected = await openModel(join(folder, 'injected'))
  window = (await readTokenFile(join(standinDir, 'samples.bin'))).slice(0, 24)
})

afterAll(async () => {
  await plain?.close()
  await injected?.close()
  await rm(folder, { recursive: true, force: true })
})

describe('injected outliers', () => {
  it('leave the function as it is', async () => {
    const { relativeDifference } = await verifySameFunction(plain, injected, backend, window)
    expect(relativeDifference).toBeLessThanOrEqual(1e-4)
  })

  it('are noticed where they do change it', async () => {
    const broken = {
      dir: 'broken',
      config: injected.config,
      has: (name: string) => injected.has(name),
      shape: (name: string) => injected.shape(name),
      tensor: (name: string) => (name.includes('layers.3.self_attn.q_proj') ? plain : injected).tensor(name),
    }
    await expect(verifySameFunction(plain, broken, backend, window)).rejects.toThrow('to have the logits of')
  })

  it('stand out wherever quantization looks', async () => {
    const options = { backend, windows: [window] }
    const before = spreads(await calibrateModel(plain, options))
    const after = spreads(await calibrateModel(injected, options))
    for (const tap of ['qkvInput', 'oInput', 'gateUpInput', 'downInput', 'keys'] as const) {
      expect(median(after[tap]), tap).toBeGreaterThan(1.5 * median(before[tap]))
    }
  })

  it('are drawn alike from equal settings, as powers of two, in the number asked for', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1e6 }), fc.integer({ min: 1, max: 64 }), (seed, keyPairs) => {
        const settings = { ...defaultOutliers, seed, keyPairs }
        const layers = drawOutliers(plain.config, settings)
        expect(drawOutliers(plain.config, settings)).toEqual(layers)
        for (const { keys, intermediate } of layers) {
          expect(keys.filter((c) => c !== 1).length).toBe(plain.config.numKeyValueHeads * keyPairs * 2)
          expect(intermediate.filter((c) => c !== 1).length).toBe(Math.round(plain.config.intermediateSize * 0.02))
          expect([...keys, ...intermediate].every((c) => Number.isInteger(Math.log2(c)))).toBe(true)
        }
      }),
      { numRuns: 20 },
    )
  })

  it('refuse to be more than there are channels', () => {
    expect(() => drawOutliers(plain.config, { ...defaultOutliers, keyPairs: 65 })).toThrow(
      'Expected at most 64 outliers among 64 channels but received 65',
    )
  })
})

/** max over channels of max|x|, relative to the median channel's, of every layer. */
function spreads(layers: readonly LayerStatistics[]): Record<string, number[]> {
  const byTap: Record<string, number[]> = {}
  for (const { activations } of layers) {
    for (const [tap, { channels }] of Object.entries(activations)) {
      const ratio = Math.max(...channels.absMax) / median([...channels.absMax])
      byTap[tap] = [...(byTap[tap] ?? []), ratio]
    }
  }
  return byTap
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]
}
