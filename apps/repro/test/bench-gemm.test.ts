import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { dequantizeInt4, f32ToBf16Bits, unpackInt4 } from '@fireq/formats'
import { CudaDevice, cudaStatus } from '@fireq/kernels'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { FakeDriverFactory, nothing } from '../../../packages/kernels/test/cuda/fake-driver/fake-driver.js'
import { Baselines } from '../src/bench/baselines.js'
import { benchFeedForwards } from '../src/bench/feed-forward.js'
import type { GemmRow } from '../src/bench/gemm.js'
import { activationPattern, randomWeight, sampledError, spread, tokenScales } from '../src/bench/linear-problem.js'
import { type GemmResult, ratioTable, shapeTables, writeGemmResult } from '../src/bench/report.js'
import { LAYERS, MODEL_NAMES, shapesOf } from '../src/bench/shapes.js'
import { repro } from './support.js'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fireq-bench-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

describe('the shapes', () => {
  it('are the linears of the Llamas, each once', () => {
    const all = shapesOf(MODEL_NAMES, LAYERS)
    expect(all.map(({ n, k }) => `${n}x${k}`)).toEqual(
      (
        '12288x4096 4096x4096 22016x4096 4096x11008 15360x5120 5120x5120 27648x5120 5120x13824 6144x4096 28672x4096 ' +
        '4096x14336 10240x8192 8192x8192 57344x8192 8192x28672'
      ).split(' '),
    )
    expect(all[1]!.layers).toEqual(['Llama-2-7B o', 'Llama-3-8B o'])
    expect(shapesOf(['Llama-3-8B'], ['down'])).toEqual([{ n: 4096, k: 14336, layers: ['Llama-3-8B down'] }])
  })
})

describe('the problem', () => {
  it.each(['sym', 'full'] as const)('has every code of the range %s, alike', (codes) => {
    const values = unpackInt4(randomWeight(512, 1024, codes, 5).codes)
    const counts = new Map<number, number>()
    for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1)
    const range = codes === 'sym' ? 15 : 16
    expect([...counts.keys()].sort((a, b) => a - b)).toEqual(Array.from({ length: range }, (_, i) => i + 8 - range))
    for (const count of counts.values()) expect(count / values.length).toBeCloseTo(1 / range, 2)
  })

  it('knows the error of a result', async () => {
    const { decodeE4m3 } = await import('@fireq/formats')
    const [m, n, k] = [5, 64, 256]
    const tensor = randomWeight(n, k, 'sym', 1)
    const w = dequantizeInt4(tensor)
    const x = decodeE4m3(activationPattern().subarray(0, m * k))
    const scale = tokenScales(m)
    const exact = (row: number, feature: number): number => {
      let sum = 0
      for (let i = 0; i < k; i++) sum += x[row * k + i]! * w[feature * k + i]!
      return sum * scale[row]!
    }
    const rows = spread(m, 8)
    expect(sampledError(tensor, m, scale, rows, (r, f) => f32ToBf16Bits(exact(r, f)))).toBeLessThan(3e-3)
    expect(sampledError(tensor, m, scale, rows, (r, f) => f32ToBf16Bits(exact(r, f) * 1.1))).toBeCloseTo(0.1, 2)
    expect(sampledError(tensor, m, scale, rows, () => 0xffff)).toBeNaN()
  })

  it('samples both ends', () => {
    expect(spread(1, 8)).toEqual([0])
    expect(spread(3, 8)).toEqual([0, 1, 2])
    expect(spread(100, 3)).toEqual([0, 49, 99])
  })
})

describe('the baselines', () => {
  const python = async (name: string, body: string): Promise<string> => {
    const path = join(folder, name)
    await writeFile(path, `#!/bin/sh\n${body}\n`)
    await chmod(path, 0o755)
    return path
  }

  it('say what is missing', async () => {
    await expect(Baselines.start('/no/such/python')).rejects.toThrow(/could not run \/no\/such\/python: .*ENOENT/)
    const torchless = await python('torchless', `echo "ModuleNotFoundError: No module named 'torch'" >&2; exit 1`)
    await expect(Baselines.start(torchless)).rejects.toThrow(
      "the baselines ended: ModuleNotFoundError: No module named 'torch'",
    )
  })

  it('answer one command after another, and report what fails', async () => {
    const script = `read line; echo '{"result": {"torch": "2.0", "cuda": "13.0", "gpu": "G"}}'
read line; echo '{"result": null}'; read line; echo '{"result": {"fp8Error": 0.5}}'
read line; echo '{"result": 12.5}'; read line; echo '{"error": "OutOfMemoryError: no"}'`
    using baselines = await Baselines.start(await python('pretended', script))
    expect(baselines.about).toEqual({ torch: '2.0', cuda: '13.0', gpu: 'G' })
    await baselines.weight(16, 128, 1000)
    expect(await baselines.tokens(3, 4)).toBe(0.5)
    expect(await baselines.time('bf16')).toBe(12.5)
    await expect(baselines.time('fp8Row')).rejects.toThrow('the baselines failed: OutOfMemoryError: no')
  })
})

describe('the report', () => {
  const row = (n: number, m: number, ours: number, fp8?: number): GemmRow => ({
    layers: ['Llama-3-8B o'],
    n,
    k: 4096,
    m,
    kernel: 'small 128 × 8',
    microseconds: { ours, ...(fp8 && { fp8Tensor: fp8, fp8Row: fp8 + 1, bf16: 2 * fp8 }) },
    teraflops: 100,
    gigabytesPerSecond: 3000,
    ...(fp8 && { ratio: fp8 / ours, fp8Error: 0.003 }),
    error: 0.0016,
  })

  it('means ratios geometrically', () => {
    const { rows } = ratioTable([row(16, 1, 1, 2), row(32, 1, 2, 1), row(16, 8, 4, 4), row(16, 9, 1)])
    expect(rows[0]).toMatchObject({ m: 1, least: 0.5, most: 2 })
    expect(rows[0]!.mean).toBeCloseTo(1)
    expect(rows[1]).toEqual({ m: 8, mean: 1, least: 1, most: 1 })
    expect(rows[2]).toEqual({ m: 9 })
  })

  it('is written as JSON with where it comes from, and as Markdown', async () => {
    const result: GemmResult = {
      benchmark: 'gemm',
      command: 'fireq-repro bench gemm',
      date: '2026-01-02T03:04:05.678Z',
      commit: '0123456789abcdef',
      machine: {
        gpu: 'H',
        multiprocessors: 132,
        driver: '580',
        cuda: '13.0',
        limits: undefined,
        cpu: 'C',
        node: 'v20',
      },
      baselines: { notRun: "No module named 'torch'" },
      codes: 'sym',
      rounds: 7,
      readBytesPerSecond: 4e12,
      rows: [row(16, 1, 1.234, 2), row(16, 8, 2), row(32, 1, 3)],
      feedForwards: [{ model: 'M', m: 4, microseconds: { gemms: 10, block: 10.4, withNorm: 11 }, ratio: 1.04 }],
    }
    const [json, markdown] = await writeGemmResult(result, join(folder, 'out'))
    expect(json).toMatch(/gemm-2026-01-02-030405\.json$/)
    expect(JSON.parse(await readFile(json!, 'utf8'))).toEqual(JSON.parse(JSON.stringify(result)))
    const text = await readFile(markdown!, 'utf8')
    expect(text).toContain(
      "commit 0123456789ab, H, driver 580, CUDA 13.0, limits undefined, 4.00 TB/s read; baselines not run: No module named 'torch'",
    )
    expect(text).toContain(
      '| 1 | 1.23 | 100 | 3000 | 0.75 | 2.00 | 3.00 | 4.00 | 1.621 | 1.60e-3 | 3.00e-3 | small 128 × 8 |',
    )
    expect(text).toContain('| 8 | 2.00 | 100 | 3000 | 0.75 | – | – | – | – | 1.60e-3 | – | small 128 × 8 |')
    expect(text).toContain('| 4 | 10.00 | 10.40 | 1.040 | 11.00 |')
    expect(shapeTables(result)).toHaveLength(2)
  })
})

// Without kernels there is nothing to launch.
const factory = cudaStatus().toolkitVersion === undefined ? undefined : new FakeDriverFactory()
afterAll(() => factory?.close())

// The address of a struct with a tensor map is a multiple of 128 since CUDA 13.
const parameterBytes = Number.parseInt(cudaStatus().toolkitVersion ?? '0', 10) >= 13 ? 256 : 192

describe.skipIf(factory === undefined || factory.problem !== undefined)('on a pretended GPU', () => {
  it('takes turns with the baselines, and writes what it found', async () => {
    const driver = factory!.make({ memory: 2 ** 31 })
    driver.setParameters([parameterBytes])
    const python = join(folder, 'turns')
    const answers = `case "$line" in *about*) echo '{"result": {"torch": "2.0", "cuda": "13.0", "gpu": "G"}}';;
*tokens*) echo '{"result": {"fp8Error": 0.003}}';; *fp8Row*) echo '{"result": 25}';; *fp8Tensor*) echo '{"result": 50}';;
*bf16*) echo '{"result": 100}';; *) echo '{"result": null}';; esac`
    await writeFile(python, `#!/bin/sh\nwhile read line; do echo "$line" >>"${folder}/asked"; ${answers}\ndone\n`)
    await chmod(python, 0o755)
    const out = join(folder, 'pretended-results')
    const args = ['bench', 'gemm', '--shapes', '256x512', '--tokens', '1,8', '--rounds', '3', '--python', python]
    const { code, stdout, stderr } = await repro([...args, '--out', out], undefined, {
      LD_LIBRARY_PATH: dirname(driver.library),
      FIREQ_COMMIT: 'abc',
    })
    expect(stderr).toContain('[2/2] 256 × 512, 8 tokens')
    expect(code, stderr).toBe(0)
    const result = JSON.parse(await readFile(/^.*gemm-.*\.json$/m.exec(stdout)![0], 'utf8')) as GemmResult
    expect(result).toMatchObject({
      commit: 'abc',
      baselines: { torch: '2.0' },
      machine: { gpu: 'Fake GPU' },
      rounds: 3,
    })
    // A graph of 48 takes 1.5 ms there.
    expect(result.rows.map(({ m, ratio, fp8Error }) => ({ m, ratio, fp8Error }))).toEqual([
      { m: 1, ratio: 25 / (1500 / 48), fp8Error: 0.003 },
      { m: 8, ratio: 25 / (1500 / 48), fp8Error: 0.003 },
    ])
    expect(result.rows[0]!.microseconds).toEqual({ ours: 1500 / 48, fp8Row: 25, fp8Tensor: 50, bf16: 100 })
    const asked = (await readFile(join(folder, 'asked'), 'utf8')).trim().split('\n')
    const turn = ['fp8Tensor', 'fp8Row', 'bf16'].map((name) => JSON.stringify({ do: 'time', name }))
    expect(asked.slice(0, 3).map((line) => JSON.parse(line).do)).toEqual(['about', 'weight', 'tokens'])
    expect(asked.slice(3, 15)).toEqual([...turn, ...turn, ...turn, ...turn]) // once before it counts
    expect(driver.alive()).toEqual(nothing)
  })

  it('runs without baselines', async () => {
    const driver = factory!.make({ memory: 2 ** 31 })
    driver.setParameters([parameterBytes])
    const args = ['bench', 'gemm', '--shapes', '64x128', '--tokens', '3', '--codes', 'full', '--python', '/no/python']
    const env = { LD_LIBRARY_PATH: dirname(driver.library) }
    const { code, stdout, stderr } = await repro([...args, '--out', join(folder, 'alone')], undefined, env)
    expect(code, stderr).toBe(0)
    expect(stderr).toContain('baselines not run: could not run /no/python')
    expect(stdout).toContain('codes −8…7')
  })
})

describe.skipIf(factory === undefined || factory.problem !== undefined)(
  'feed-forward networks on a pretended GPU',
  () => {
    it('are timed with and without what is around their GEMMs', async () => {
      const driver = factory!.make({ memory: 2 ** 30 })
      driver.setParameters([parameterBytes])
      const shapes = [{ model: 'M', hidden: 128, intermediate: 256 }]
      const settings = { tokens: [1, 5], rounds: 3, codes: 'sym' } as const
      {
        using device = CudaDevice.open({ library: driver.library })
        using stream = device.createStream()
        const progress = { expect: vi.fn(), begin: vi.fn(), within: vi.fn(), note: vi.fn(), stop: vi.fn() }
        const rows = await benchFeedForwards(device, stream, shapes, settings, progress, new AbortController().signal)
        // Graphs take 1.5 ms there, of 32 networks each.
        const time = 1500 / 32
        const microseconds = { gemms: time, block: time, withNorm: time }
        expect(rows).toEqual([1, 5].map((m) => ({ model: 'M', m, microseconds, ratio: 1 })))
        expect(progress.begin).toHaveBeenLastCalledWith('feed-forward of M, 5 tokens')
      }
      expect(driver.alive()).toEqual(nothing)
    })
  },
)

describe('the command', () => {
  it.each([
    [['--models', 'gpt'], /Expected some of Llama-2-7B, Llama-2-13B/],
    [['--layers', 'q'], /Expected some of qkv, o, gate_up, down/],
    [['--shapes', '100x128'], /Expected NxK,… with N a multiple of 16 and K of 128/],
    [['--tokens', '1,0'], /Expected a whole number of at least 1/],
    [['--codes', 'half'], /Allowed choices are sym, full/],
  ])('refuses %j', async (args, message) => {
    const { code, stderr, stdout } = await repro(['bench', 'gemm', ...args])
    expect(stderr).toMatch(message)
    expect(code).toBe(2)
    expect(stdout).toBe('')
  })

  it.skipIf(cudaStatus().usable)('says that there is no GPU, and why', async () => {
    const { code, stdout } = await repro(['bench', 'gemm'])
    expect(stdout).toMatch(/^skipped: no GPU: /)
    expect(code).toBe(0)
  })
})
