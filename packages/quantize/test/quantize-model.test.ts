import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { dequantizeInt4, type Int4Tensor, type ModelSource, openModel, quantizeInt4, toFloat32 } from '@fireq/formats'
import { ReferenceBackend } from '@fireq/kernels'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseRecipe, preflight, printPreflight, type QuantizeProgress, quantizeModel } from '../src/index.js'
import { digests } from './digests.js'
import { tinyFireq, tinyTokens, writeTinyModel } from './tiny-model.js'

const backend = new ReferenceBackend()
const fireq = parseRecipe(tinyFireq)
const rtn = parseRecipe({ weights: { groupSize: 32 } })
const calibrationIds = tinyTokens(200)
let dir: string
let source: ModelSource
let count = 0
const out = () => join(dir, `out-${count++}`)

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'fireq-quantize-'))
  source = await openModel(await writeTinyModel(join(dir, 'tiny')))
})
afterAll(async () => {
  await source.close()
  await rm(dir, { recursive: true })
})

const up = 'model.layers.1.mlp.up_proj.weight'
const int4 = async (model: ModelSource, name: string) => (await model.tensor(name)) as Int4Tensor

describe('quantizeModel without calibration', () => {
  it('rounds every linear of the layers and keeps the rest as it is', async () => {
    const { outDir, layers } = await quantizeModel(source, rtn, out())
    await using model = await openModel(outDir)
    for (const name of source.names()) {
      const original = await source.tensor(name)
      const written = await model.tensor(name)
      if (!/layers\..*_proj\.weight$/.test(name)) {
        expect(written, name).toEqual(original)
        continue
      }
      const expected = quantizeInt4(toFloat32(original), original.shape as [number, number], {
        groupSize: 32,
        scale: 'bf16',
      })
      expect(written, name).toEqual(expected)
    }
    expect(layers.length).toBe(3)
    expect(Object.keys(layers[0]!.weightErrors).length).toBe(7)
    expect(model.quantization).toMatchObject({
      activations: 'e4m3',
      queries: 'none',
      kv: { dtype: 'bf16' },
      recipe: rtn,
    })
    expect(model.quantization?.keyScale).toBeUndefined()
  })

  it('records the error of every weight', async () => {
    const { outDir, layers } = await quantizeModel(source, rtn, out())
    await using model = await openModel(outDir)
    const original = toFloat32(await source.tensor(up))
    const rounded = dequantizeInt4(await int4(model, up))
    const noise = Math.hypot(...original.map((w, i) => w - rounded[i]!))
    const relative = noise / Math.hypot(...original)
    expect(relative).toBeGreaterThan(0.02)
    expect(layers[1]!.weightErrors[up]!.relative).toBeCloseTo(relative, 6)
    expect(layers[1]!.weightErrors[up]!.snr).toBeCloseTo(-20 * Math.log10(relative), 4)
    expect(model.quantization!.provenance!.layers).toEqual(layers)
  })

  it('follows overrides', async () => {
    const recipe = parseRecipe({
      weights: { groupSize: 32 },
      overrides: [
        { match: '**.down_proj.weight', groupSize: 16, scale: 'e4m3', tensorScale: 2, lookupRounding: true },
        { match: '/layers\\.2\\.self_attn/', skip: true },
      ],
    })
    const { outDir, layers } = await quantizeModel(source, recipe, out())
    await using model = await openModel(outDir)
    const down = await int4(model, 'model.layers.0.mlp.down_proj.weight')
    expect(down).toMatchObject({ groupSize: 16, lookupRounding: true, groupScale: { dtype: 'e4m3' } })
    expect(down.channelScale![0]).toBe(0.25)
    expect(model.dtype('model.layers.2.self_attn.o_proj.weight')).toBe('bf16')
    expect(model.dtype('model.layers.1.self_attn.o_proj.weight')).toBe('i4g')
    expect(Object.keys(layers[2]!.weightErrors).length).toBe(3)
  })

  it('says which weight can not be rounded, or smoothed', async () => {
    const model: ModelSource = Object.assign(Object.create(source) as ModelSource, {
      tensor: async (name: string) => {
        const tensor = await source.tensor.call(source, name)
        if (name === up && tensor.kind === 'dense') tensor.data.fill(0x7fc0, 100, 101)
        return tensor
      },
      names: () => source.names(),
      dtype: (name: string) => source.dtype(name),
    })
    await expect(quantizeModel(model, rtn, out())).rejects.toThrow(`${up}: Expected finite weights but received NaN`)
    const smoothed = parseRecipe({
      weights: { groupSize: 32 },
      smoothing: { channelWise: { gateUp: { type: 1, constant: 1 } } },
    })
    await expect(quantizeModel(model, smoothed, out())).rejects.toThrow(
      'Layer 1: Expected a finite value for up[1, 36]',
    )
  })
})

describe('quantizeModel with calibration', () => {
  it('writes the run-time part of the method beside the weights', async () => {
    const { outDir, layers } = await quantizeModel(source, fireq, out(), { backend, calibrationIds })
    await using model = await openModel(outDir)
    const { queries, probabilities, kv, keyScale, provenance } = model.quantization!
    expect({ queries, probabilities, kv }).toEqual({ queries: 'e4m3', probabilities: 'e4m3', kv: tinyFireq.kv })
    expect(keyScale!.map((scales) => scales.length)).toEqual([32, 32, 32])
    // Three channels a head, and their partners.
    for (const scales of keyScale!) {
      const scaled = scales.filter((s) => s !== 1).length
      expect(scaled).toBeGreaterThanOrEqual(4)
      expect(scaled).toBeLessThanOrEqual(6)
    }
    expect(provenance).toMatchObject({ source: 'tiny', calibration: { windows: 3, length: 12 } })
    expect(layers[0]!.folds.map(({ what }) => what)).toEqual(
      expect.arrayContaining([expect.stringContaining('value multiplier'), expect.stringContaining('pre-RoPE')]),
    )
  })

  it('depends on the calibration tokens and the seed', async () => {
    const keyScale = async (recipe: object, ids: Int32Array) => {
      const { outDir } = await quantizeModel(source, parseRecipe({ ...tinyFireq, ...recipe }), out(), {
        backend,
        calibrationIds: ids,
      })
      await using model = await openModel(outDir)
      return model.quantization!.keyScale
    }
    const first = await keyScale({}, calibrationIds)
    expect(await keyScale({}, calibrationIds)).toEqual(first)
    expect(await keyScale({ calibration: { windows: 3, length: 12, seed: 2 } }, calibrationIds)).not.toEqual(first)
  })

  it('reports progress: stages in order, a fraction that rises to 1, time left from the first layer on', async () => {
    const events: QuantizeProgress[] = []
    await quantizeModel(source, fireq, out(), { backend, calibrationIds, onProgress: (event) => events.push(event) })
    const stages = events.map(({ stage, layer }) => `${stage} ${layer ?? ''}`.trim())
    expect([...new Set(stages)]).toEqual([
      'copy',
      ...[0, 1, 2].flatMap((i) => ['calibrate', 'transform', 'round', 'write'].map((stage) => `${stage} ${i}`)),
      'finish',
    ])
    events.slice(1).forEach(({ fraction }, i) => {
      expect(fraction).toBeGreaterThanOrEqual(events[i]!.fraction)
    })
    expect(events.at(-1)!.fraction).toBe(1)
    for (const { layer, secondsLeft } of events) {
      if (layer === 0) expect(secondsLeft).toBeUndefined()
      else if (layer !== undefined) expect(secondsLeft).toBeGreaterThanOrEqual(0)
    }
  })
})

describe('a run that was aborted', () => {
  const variants = [
    ['with hidden states saved after every layer', 0],
    ['with hidden states recomputed', 1e9],
  ] as const

  it.each(variants)('goes on to the same files, %s', async (_, saveStatesEveryMs) => {
    const whole = out()
    await quantizeModel(source, fireq, whole, { backend, calibrationIds })
    const expected = await digests(whole)
    let steps = 0
    await quantizeModel(source, fireq, out(), { backend, calibrationIds, onProgress: () => steps++ })
    expect(steps).toBeGreaterThan(40)
    for (const stopAt of [0, 4, 22, 35, steps - 1]) {
      const path = out()
      const controller = new AbortController()
      let seen = 0
      const onProgress = () => {
        if (seen++ === stopAt) controller.abort(new Error(`stopped at ${stopAt}`))
      }
      const options = { backend, calibrationIds, saveStatesEveryMs }
      const first = quantizeModel(source, fireq, path, { ...options, signal: controller.signal, onProgress })
      if (stopAt < steps - 1) {
        await expect(first).rejects.toThrow(`stopped at ${stopAt}`)
        await expect(openModel(path)).rejects.toThrow()
        await quantizeModel(source, fireq, path, options)
      } else await first
      expect(await digests(path)).toEqual(expected)
    }
    expect((await readdir(dir)).filter((name) => name.endsWith('.states'))).toEqual([])
  })

  it('does not run finished layers again where their hidden states are saved', async () => {
    const replayed = async (saveStatesEveryMs: number) => {
      const path = out()
      const controller = new AbortController()
      const options = { backend, calibrationIds, saveStatesEveryMs }
      const onProgress = ({ layer }: QuantizeProgress) => {
        if (layer === 2) controller.abort()
      }
      await expect(
        quantizeModel(source, fireq, path, { ...options, signal: controller.signal, onProgress }),
      ).rejects.toThrow()
      const layers = new Set<number>()
      await quantizeModel(source, fireq, path, {
        ...options,
        onProgress: ({ stage, layer }) => {
          if (stage === 'replay') layers.add(layer!)
        },
      })
      return [...layers]
    }
    expect(await replayed(0)).toEqual([])
    expect(await replayed(1e9)).toEqual([0, 1])
  })

  it('does not trust hidden states of another run, or damaged ones', async () => {
    const whole = out()
    await quantizeModel(source, fireq, whole, { backend, calibrationIds })
    for (const damage of [
      (bytes: Buffer) => bytes.subarray(0, bytes.length - 4),
      (bytes: Buffer) =>
        Buffer.from(bytes.toString('latin1').replace(/"identity":"..../, '"identity":"ffff'), 'latin1'),
      () => Buffer.from('nothing'),
    ]) {
      const path = out()
      const controller = new AbortController()
      const options = { backend, calibrationIds, saveStatesEveryMs: 0 }
      const onProgress = ({ layer }: QuantizeProgress) => {
        if (layer === 1) controller.abort()
      }
      await expect(
        quantizeModel(source, fireq, path, { ...options, signal: controller.signal, onProgress }),
      ).rejects.toThrow()
      await writeFile(
        join(`${path}.states`, 'hidden.safetensors'),
        damage(await readFile(join(`${path}.states`, 'hidden.safetensors'))),
      )
      await quantizeModel(source, fireq, path, options)
      expect(await digests(path)).toEqual(await digests(whole))
    }
  })

  it('is not resumed with another recipe, unless it may be overwritten', async () => {
    const path = out()
    const controller = new AbortController()
    const onProgress = ({ layer }: QuantizeProgress) => {
      if (layer === 1) controller.abort()
    }
    await expect(quantizeModel(source, rtn, path, { signal: controller.signal, onProgress })).rejects.toThrow()
    const other = parseRecipe({ weights: { groupSize: 16 } })
    await expect(quantizeModel(source, other, path)).rejects.toThrow('Expected an unfinished model of the same source')
    await quantizeModel(source, other, path, { overwrite: true })
    await using model = await openModel(path)
    expect(await int4(model, up)).toMatchObject({ groupSize: 16 })
  })
})

describe('preflight', () => {
  const problems = async (recipe: object, options = {}, path = out()) =>
    (await preflight(source, parseRecipe(recipe), path, options)).problems

  it('knows the size of every file to come', async () => {
    for (const recipe of [rtn, fireq]) {
      const path = out()
      const plan = await preflight(source, recipe, path, { calibrationIds })
      expect(plan.problems).toEqual([])
      await quantizeModel(source, recipe, path, { backend, calibrationIds })
      const index = JSON.parse(await readFile(join(path, 'model.safetensors.index.json'), 'utf8'))
      expect(plan.outputBytes).toBe(index.metadata.total_size)
    }
  })

  it('finds what is wrong, all of it', async () => {
    const divides = (name: string, K: number) =>
      `model.layers.{0-2}.${name}_proj.weight: expected a groupSize that divides K=${K} but received 128`
    expect(await problems({ activations: 'none' })).toEqual([
      ...['q', 'k', 'v', 'o'].map((name) => divides(`self_attn.${name}`, 64)),
      ...['gate', 'up'].map((name) => divides(`mlp.${name}`, 64)),
      divides('mlp.down', 96),
    ])
  })

  it('finds calibration data that are missing, too few or of another vocabulary, and a missing backend', async () => {
    expect(await problems(tinyFireq)).toEqual(['The recipe needs calibration data: expected at least 36 tokens'])
    expect(await problems(tinyFireq, { calibrationIds: new Int32Array(35), hasBackend: false })).toEqual([
      'The recipe needs calibration, so expected a backend to run the model on',
      'Expected at least 36 calibration tokens (3 windows of 12) but received 35',
    ])
    expect(await problems(tinyFireq, { calibrationIds: new Int32Array(40).fill(96, 7) })).toEqual([
      'Expected calibration tokens below the vocabulary of 96 but token 7 is 96',
    ])
    const long = { ...tinyFireq, calibration: { windows: 1, length: 65 } }
    expect(await problems(long, { calibrationIds })).toEqual([
      'Expected calibration.length of at most 64 (max_position_embeddings) but received 65',
    ])
    const wide = { ...tinyFireq, smoothing: { postRope: { beta: 8, topK: 33 } } }
    expect((await problems(wide, { calibrationIds }))[0]).toContain('topK of at most headDim 32 but received 33')
  })

  it('finds overrides that match nothing, or split what is one matrix at run time', async () => {
    const overrides = [{ match: 'model.layers.*.mlp.down.weight', skip: true }]
    expect(await problems({ weights: { groupSize: 32 }, overrides })).toEqual([
      'The override "model.layers.*.mlp.down.weight" matches no weight: expected something like model.layers.0.self_attn.q_proj.weight',
    ])
    const split = [{ match: '/layers.1.self_attn.k_proj/', skip: true }]
    expect((await problems({ weights: { groupSize: 32 }, overrides: split }))[0]).toContain(
      'model.layers.1.self_attn.q_proj.weight and model.layers.1.self_attn.k_proj.weight are one matrix at run time',
    )
  })

  it('finds an output in the way, and a source that is quantized already', async () => {
    const path = out()
    await mkdir(path)
    const weights = { groupSize: 32 }
    expect(await problems({ weights }, {}, path)).toEqual([])
    await writeFile(join(path, 'config.json'), '{}')
    expect(await problems({ weights }, {}, path)).toEqual([`${path} exists, and overwriting was not asked for`])
    expect(await problems({ weights }, { overwrite: true }, path)).toEqual([])
    const file = join(path, 'config.json')
    expect(await problems({ weights }, {}, file)).toEqual([`${file} is a file: expected a directory to be made`])

    const { outDir } = await quantizeModel(source, rtn, out())
    await using quantized = await openModel(outDir)
    const plan = await preflight(quantized, rtn, out())
    expect(plan.problems).toEqual([`${outDir} is quantized already: expected an unquantized model`])
  })

  it('finds a disk that is too small', async () => {
    const huge: ModelSource = Object.assign(Object.create(source), {
      config: { ...source.config, vocabSize: 2 ** 50 },
      dtype: (name: string) => source.dtype(name),
    })
    const plan = await preflight(huge, rtn, out())
    expect(plan.problems.join()).toMatch(/^The disk of .* has \d+ bytes free, \d+ too few$/)
  })

  it('is the only thing that happens where there are problems', async () => {
    const path = out()
    await expect(quantizeModel(source, fireq, path)).rejects.toThrow('The recipe needs calibration data')
    await expect(stat(`${path}.partial`)).rejects.toThrow('ENOENT')
  })

  it('prints itself, with a line for each kind of tensor', async () => {
    const text = printPreflight(await preflight(source, fireq, out()), { tensors: true })
    expect(text).toContain('calibration  36 tokens')
    expect(text).toContain('problem      The recipe needs calibration data')
    expect(text).toMatch(/model\.layers\.\{0-2\}\.mlp\.up_proj\.weight +\[96, 64\] +bf16 → int4 g32 e4m3 ×2\^i +4\.521/)
    expect(text).toMatch(/model\.layers\.\{0-2\}\.input_layernorm\.weight +\[64\] +bf16 → f32 +32\.000 +768 B/)
    expect(text).toMatch(/lm_head\.weight +\[96, 64\] +bf16 +16\.000 +12\.0 KiB/)
  })
})
