import { existsSync } from 'node:fs'
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { decodeE4m3, encodeBf16 } from '@fireq/formats'
import { CudaDevice, cudaStatus } from '@fireq/kernels'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { FakeDriverFactory, nothing } from '../../../packages/kernels/test/cuda/fake-driver/fake-driver.js'
import { attentionErrors } from '../src/bench/attention-accuracy.js'
import { DEVIATION, fillCache, layOut } from '../src/bench/attention-cache.js'
import { type AttentionResult, attentionTables, writeAttentionResult } from '../src/bench/attention-report.js'
import { DECODES, MIXES, PREFILLS, traceShape } from '../src/bench/attention-shapes.js'
import { activationPattern } from '../src/bench/linear-problem.js'
import { repro } from './support.js'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fireq-bench-attention-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

describe('the shapes', () => {
  it("are the issue's, a batch of equal lengths each", () => {
    expect(PREFILLS.map(({ label }) => label)).toEqual(['16 × 1024', '8 × 2048', '4 × 4096', '1 × 16384', '1 × 65536'])
    expect(DECODES).toHaveLength(15)
    expect(DECODES.at(-1)).toMatchObject({ kind: 'decode', label: '256 × 16384' })
    expect(DECODES.at(-1)!.lengths).toEqual(new Array(256).fill(16384))
  })

  const file = async (name: string, text: string | Uint8Array): Promise<string> => {
    await writeFile(join(folder, name), text)
    return join(folder, name)
  }

  it.each([
    ['azure.csv', 'TIMESTAMP,ContextTokens,GeneratedTokens\n2023 a,100,10\n2023 b,200,21\n2023 c,300000,2\n'],
    ['sarathi.csv', 'num_prefill_tokens,num_decode_tokens,pd_ratio\n100,10,1\n200,21,1\n300000,2,1\n'],
    [
      'mooncake.jsonl',
      '{"input_length": 100, "output_length": 10}\n{"input_length": 200, "output_length": 21}\n{"input_length": 300000, "output_length": 2}',
    ],
  ])('of a mix come from a trace: %s', async (name, text) => {
    const wanted = { kind: 'decode', lengths: [105, 211, 131072], label: '3 × 105 … 131072 (mean 43796)' }
    expect(await traceShape(await file(name, text), 64)).toEqual(wanted)
    expect(await traceShape(await file(`${name}.gz`, gzipSync(text)), 3)).toEqual(wanted)
    expect((await traceShape(await file(name, text), 2)).lengths).toEqual([105, 131072])
  })

  it.each([
    ['a,b\n1,2\n', /expected columns ContextTokens and GeneratedTokens, or .*, but found a, b/],
    ['ContextTokens,GeneratedTokens\n5,x\n', /expected lengths in every line, but found 5,x/],
    ['ContextTokens,GeneratedTokens\n', /expected requests, but found none/],
  ])('say what is wrong with a trace: %j', async (text, message) => {
    await expect(traceShape(await file('bad.csv', text), 4)).rejects.toThrow(message)
  })

  const traces = join(
    process.env.FIREQ_TEST_DATA ?? join(import.meta.dirname, '../../../../shared'),
    'data/serving-traces',
  )
  it.skipIf(!existsSync(traces))('of mixes are those of the traces that they name', async () => {
    const [azure, mooncake] = ['azure-2023-conv.csv.gz', 'mooncake-conversation.jsonl.gz'].map((name) =>
      join(traces, name),
    )
    expect(MIXES.azure.lengths).toEqual((await traceShape(azure!, 128)).lengths)
    expect(MIXES.mooncake.lengths).toEqual((await traceShape(mooncake!, 64)).lengths)
  })

  it('of mixes say what they are', () => {
    expect(MIXES.azure.label).toBe('Azure: 128 × 247 … 4156 (mean 1102)')
    expect(MIXES.mooncake.label).toBe('Mooncake: 64 × 1058 … 81628 (mean 12770)')
  })

  it.each([[[64, 1, 130]], [[7919 * 64]], [[16384, 16384, 16384]]])('lie on pages of their own: %j', (lengths) => {
    const { pages, pagesOf } = layOut(lengths)
    const all = pagesOf.flat()
    expect(pagesOf.map((own) => own.length)).toEqual(lengths.map((length) => Math.ceil(length / 64)))
    expect(new Set(all).size).toBe(all.length)
    expect(Math.max(...all)).toBeLessThan(pages)
    expect(Math.min(...all)).toBeGreaterThanOrEqual(0)
  })
})

const result: AttentionResult = {
  benchmark: 'attention',
  command: 'fireq-repro bench attention',
  date: '2026-01-02T03:04:05.678Z',
  commit: '0123456789abcdef',
  machine: { gpu: 'H', multiprocessors: 132, driver: '580', cuda: '13.0', limits: undefined, cpu: 'C', node: 'v20' },
  baselines: { torch: '2.9', cuda: '13.0', gpu: 'H' },
  rounds: 7,
  readBytesPerSecond: 4e12,
  copyBytesPerSecond: 5e12,
  skipped: [{ kind: 'decode', shape: '9 × 9', heads: 32, keyHeads: 32, why: 'out of GPU memory' }],
  rows: [
    {
      ...({ kind: 'prefill', shape: '1 × 100', heads: 32, keyHeads: 8, operations: 5e9, kvBytes: 1e5 } as const),
      microseconds: { symmetric: 10, asymmetric: 12.5, cudnn: 20, flash: 40 },
      ratio: { symmetric: 2, asymmetric: 1.6 },
      error: { symmetric: 0.00123, asymmetric: 0.002, cudnn: 0.0021, flash: 0.0022 },
      totalError: { symmetric: 0.1, asymmetric: 0.08 },
    },
    {
      ...({ kind: 'prefill', shape: '1 × 200', heads: 32, keyHeads: 8, operations: 2e10, kvBytes: 2e5 } as const),
      microseconds: { symmetric: 40, cudnn: 20 },
      ratio: { symmetric: 0.5 },
      ...{ error: { symmetric: 0.003 }, totalError: { symmetric: 0.2 } },
    },
    {
      ...({ kind: 'decode', shape: '64 × 1 … 9', heads: 32, keyHeads: 32, operations: 1e9, kvBytes: 3e8 } as const),
      microseconds: { symmetric: 100, asymmetric: 150 },
      ...{ ratio: {}, error: {}, totalError: {} },
    },
  ],
  stores: [{ tokens: 16, heads: 32, keyHeads: 8, microseconds: { symmetric: 2 }, bytes: 4e6 }],
}

describe('the report', () => {
  it('has a table of each kind, and what ratios come to', async () => {
    const [summary, prefill, decode, store, errors, notRun] = attentionTables(result)
    expect(summary!.rows).toEqual([{ group: 'prefill, 32/8 heads', cudnn: 1, flash: 4, better: 1 }])
    expect(prefill!.rows[0]).toMatchObject({
      heads: '32/8',
      symmetricFlops: 500,
      asymmetricFlops: 400,
      asymmetricRatio: 1.6,
    })
    expect(decode!.rows[0]).toMatchObject({ symmetricRate: 3000, symmetricShare: 0.75, asymmetricRate: 2000 })
    expect(store!.rows[0]).toMatchObject({ tokens: 16, symmetricRate: 2000, symmetricShare: 0.4 })
    expect(errors!.rows[0]).toMatchObject({ symmetric: '1.23e-3', cudnn: '2.10e-3', asymmetricTotal: '8.00e-2' })
    expect(notRun!.rows).toEqual([{ kind: 'decode', shape: '9 × 9', heads: '32/32', why: 'out of GPU memory' }])
    expect(attentionTables({ ...result, rows: [], stores: [], skipped: [] })).toEqual([])
    const [json, markdown] = await writeAttentionResult(result, join(folder, 'out'))
    expect(json).toMatch(/attention-2026-01-02-030405\.json$/)
    expect(JSON.parse(await readFile(json!, 'utf8'))).toEqual(JSON.parse(JSON.stringify(result)))
    const text = await readFile(markdown!, 'utf8')
    expect(text).toContain(
      'commit 0123456789ab, H, driver 580, CUDA 13.0, limits undefined, 4.00 TB/s read; PyTorch 2.9; 5.00 TB/s copied, medians of 7',
    )
    expect(text).toContain('| 1 × 100 | 32/8 | 10.00 | 12.50 | 500 | 400 | 20.0 | 40.0 | 2.00 | 1.60 |')
    expect(text).toContain('| 64 × 1 … 9 | 32/32 | 100.00 | 150.00 | 3000 | 2000 | 0.75 | 0.50 | – | – | – | – |')
    expect(text).toContain('| 16 | 32/8 | 2.00 | – | 2000 | – | 0.40 | – |')
  })
})

// Without kernels there is nothing to launch.
const factory = cudaStatus().toolkitVersion === undefined ? undefined : new FakeDriverFactory()
afterAll(() => factory?.close())

describe.skipIf(factory === undefined || factory.problem !== undefined)('on a pretended GPU', () => {
  const makeDriver = (memory = 2 ** 31) => {
    const driver = factory!.make({ memory })
    driver.setParameters([1]) // kernels of attention have their own
    return driver
  }

  it('takes turns with the baselines, and writes what it found', async () => {
    const driver = makeDriver()
    const python = join(folder, 'turns')
    const trace = join(folder, 'trace.csv')
    await writeFile(trace, 'ContextTokens,GeneratedTokens\n70,2\n130,4\n')
    const answers = `case "$line" in *about*) echo '{"result": {"torch": "2.0", "cuda": "13.0", "gpu": "G"}}';;
*prepare*'"causal":true'*) echo '{"result": {"flash": "No available kernel."}}';;
*prepare*) echo '{"result": {}}';; *'"do":"error"'*) echo '{"result": 0.002}';; *cudnn*) echo '{"result": 500}';; *flash*) echo '{"result": 250}';; esac`
    await writeFile(python, `#!/bin/sh\nwhile read line; do echo "$line" >>"${folder}/asked"; ${answers}\ndone\n`)
    await chmod(python, 0o755)
    const shapes = [
      '--heads',
      '4/2',
      '--prefill',
      '2x100',
      '--decode',
      '3x70',
      '--store',
      '5',
      '--mixes',
      'none',
      '--traces',
      trace,
    ]
    const args = [
      'bench',
      'attention',
      ...shapes,
      '--rounds',
      '3',
      '--python',
      python,
      '--out',
      join(folder, 'results'),
    ]
    const { code, stdout, stderr } = await repro(args, undefined, {
      LD_LIBRARY_PATH: dirname(driver.library),
      FIREQ_COMMIT: 'abc',
    })
    expect(code, stderr).toBe(0)
    expect(stderr).toContain('2 × 100: flash not run: No available kernel.')
    expect(stderr).toContain('decode 2 × 71 … 132 (mean 102), 4/2 heads')
    const written = JSON.parse(await readFile(/^.*attention-.*\.json$/m.exec(stdout)![0], 'utf8')) as AttentionResult
    expect(written).toMatchObject({
      commit: 'abc',
      baselines: { torch: '2.0' },
      machine: { gpu: 'Fake GPU' },
      rounds: 3,
    })
    // A graph takes 1.5 ms there: of 48 attentions, of 32 stores.
    const [ours, stored] = [1500 / 48, 1500 / 32]
    const both = { symmetric: ours, asymmetric: ours }
    expect(written.rows).toMatchObject([
      { kind: 'prefill', shape: '2 × 100', microseconds: { ...both, cudnn: 500 }, ratio: { symmetric: 500 / ours } },
      {
        kind: 'decode',
        shape: '3 × 70',
        microseconds: { ...both, cudnn: 500, flash: 250 },
        ratio: { asymmetric: 250 / ours },
      },
      { kind: 'decode', heads: 4, keyHeads: 2, microseconds: both, ratio: {} },
    ])
    expect(written.rows[0]).toMatchObject({ operations: 4 * 4 * 128 * 2 * 5050, kvBytes: 200 * 2 * 132 })
    expect(written.rows[2]).toMatchObject({ operations: 4 * 4 * 128 * 203, kvBytes: 203 * 2 * 132 })
    const bytes = 5 * (8 * 256 + 4 * 132 + 2 * 132 + 8)
    expect(written.stores).toEqual([
      { tokens: 5, heads: 4, keyHeads: 2, bytes, microseconds: { symmetric: stored, asymmetric: stored } },
    ])
    const asked = (await readFile(join(folder, 'asked'), 'utf8'))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(asked.filter((command) => command.do === 'prepare')).toEqual([
      { do: 'prepare', causal: true, batch: 2, length: 100, heads: 4, key_heads: 2, count: 48, bytes: 1 },
      { do: 'prepare', causal: false, batch: 3, length: 70, heads: 4, key_heads: 2, count: 48, bytes: 250e6 },
    ])
    expect(asked.filter((command) => command.name === 'flash' && command.do === 'time')).toHaveLength(4) // once before it counts
    expect(written.rows[1]!.error).toMatchObject({ cudnn: 0.002, flash: 0.002 })
    expect(Object.keys(written.rows[1]!.totalError)).toEqual(['symmetric', 'asymmetric'])
    expect(written.skipped).toEqual([])
    expect(driver.alive()).toEqual(nothing)
  }, 60_000)

  it('runs without baselines, and what is asked for alone', async () => {
    const driver = makeDriver()
    const shapes = [
      '--heads',
      '2/2',
      '--prefill',
      'none',
      '--decode',
      '1x64',
      '--store',
      'none',
      '--mixes',
      'none',
      '--formats',
      'asymmetric',
    ]
    const args = ['bench', 'attention', ...shapes, '--python', '/no/python', '--out', join(folder, 'alone')]
    const { code, stdout, stderr } = await repro(args, undefined, { LD_LIBRARY_PATH: dirname(driver.library) })
    expect(code, stderr).toBe(0)
    expect(stderr).toContain('baselines not run: could not run /no/python')
    expect(stdout).toContain('Decode')
    expect(stdout).not.toContain('Prefill')
    expect(driver.alive()).toEqual(nothing)
  }, 60_000)

  it('goes on without what memory does not hold', async () => {
    const driver = makeDriver()
    const shapes = [
      '--heads',
      '2/2',
      '--prefill',
      'none',
      '--decode',
      '300x16384,1x64',
      '--mixes',
      'none',
      '--store',
      'none',
    ]
    const args = ['bench', 'attention', ...shapes, '--no-baselines', '--out', join(folder, 'much')]
    const { code, stdout, stderr } = await repro(args, undefined, { LD_LIBRARY_PATH: dirname(driver.library) })
    expect(code, stderr).toBe(0)
    expect(stderr).toMatch(/decode 300 × 16384, 2\/2 heads: skipped: .*out of GPU memory/)
    expect(stdout).toMatch(/Not run[\s\S]*300 × 16384/)
    expect(stdout).toMatch(/Decode[\s\S]*1 × 64/)
    expect(driver.alive()).toEqual(nothing)
  }, 60_000)

  it('compares with float64 attention: one token has its own values', async () => {
    const driver = makeDriver(2 ** 28)
    {
      using device = CudaDevice.open({ library: driver.library })
      using stream = device.createStream()
      const counts = { heads: 4, keyHeads: 2 }
      const bits = new Uint16Array(3 * 4 * 128)
      const projected = encodeBf16(decodeE4m3(activationPattern()).map((value) => value / DEVIATION))
      for (let row = 0; row < 3; row++) {
        const ofValues = row * 8 * 128 + 7 * 128 // the last head's
        for (const head of [2, 3]) bits.set(projected.subarray(ofValues, ofValues + 128), (row * 4 + head) * 128)
      }
      using out = stream.allocate(bits.byteLength, 'out')
      await stream.upload(out, bits, 'out')
      for (const kind of ['decode', 'prefill'] as const) {
        const shape = { kind, label: '', lengths: [1, 1, 1] }
        const errors = await attentionErrors(stream, shape, counts, 'symmetric', out)
        expect(errors.total).toBe(0)
        expect(errors.kernel).toBeGreaterThan(0.05) // INT4
        expect(errors.kernel).toBeLessThan(0.15)
      }
    }
    expect(driver.alive()).toEqual(nothing)
  })

  it('fills every layer of a cache, a part of the tokens after another', async () => {
    const driver = makeDriver(2 ** 28)
    {
      using device = CudaDevice.open({ library: driver.library })
      using stream = device.createStream()
      using cache = await fillCache(device, stream, { heads: 4, keyHeads: 2 }, 'symmetric', [4000, 100, 5000], 3)
      expect(cache.bytes).toBe(3 * (63 + 2 + 79) * 2 * 8448)
      expect(driver.get('launches')).toBe(3 * 3) // 9100 tokens, 4096 at a time
    }
    expect(driver.alive()).toEqual(nothing)
  })
})

describe('the command', () => {
  it.each([
    [['--heads', '6/4'], /Expected H\/Hkv,… with 1 to 16 query heads/],
    [['--prefill', '1024'], /Expected NxM,…: sequences and tokens/],
    [['--decode', '0x5'], /Expected NxM,…/],
    [['--mixes', 'bing'], /Expected some of azure, mooncake/],
    [['--formats', 'fp8'], /Expected some of symmetric, asymmetric/],
    [['--store', '1,0'], /Expected a whole number of at least 1/],
  ])('refuses %j', async (args, message) => {
    const { code, stderr, stdout } = await repro(['bench', 'attention', ...args])
    expect(stderr).toMatch(message)
    expect(code).toBe(2)
    expect(stdout).toBe('')
  })

  it('says what it measures by default, as one would type it', async () => {
    const { stdout } = await repro(['bench', 'attention', '--help'])
    for (const text of ['32/8,32/32', '16x1024,8x2048,4x4096,1x16384,1x65536', 'azure,mooncake', '1,16,128,1024'])
      expect(stdout).toContain(text)
    expect((await repro(['bench', 'gemm', '--help'])).stdout).toContain('Llama-2-7B,Llama-2-13B,Llama-3-8B,Llama-3-70B')
  })

  it('names a trace that it can not read', async () => {
    const { code, stderr } = await repro(['bench', 'attention', '--traces', join(folder, 'none.csv')])
    expect(stderr).toContain('none.csv')
    expect(code).not.toBe(0)
  })

  it.skipIf(cudaStatus().usable)('says that there is no GPU, and why', async () => {
    const { code, stdout } = await repro(['bench', 'attention'])
    expect(stdout).toMatch(/^skipped: no GPU: /)
    expect(code).toBe(0)
  })
})
