import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { attendDecode, attendPrefill } from '../../src/cuda/attention.js'
import { DecodeBatch, type DecodeBatchOptions } from '../../src/cuda/decode-batch.js'
import { type DecodePlan, planDecode } from '../../src/cuda/decode-plan.js'
import { CudaDevice } from '../../src/cuda/device.js'
import { CudaKvCache, type CudaKvCacheSpec } from '../../src/cuda/kv-cache.js'
import type { KvSequence } from '../../src/cuda/kv-sequences.js'
import { PrefillBatch, type PrefillSequence } from '../../src/cuda/prefill-batch.js'
import type { CudaBuffer } from '../../src/cuda/resources.js'
import { type RopeStoreKv, ropeStoreKv } from '../../src/cuda/rope-store-kv.js'
import type { CudaStream } from '../../src/cuda/stream.js'
import { type FakeDriver, nothing } from './fake-driver/fake-driver.js'
import { layouts } from './kv-layout.js'
import { describeFake, fakeFactory, hasKernels } from './support.js'

const describeKernels: typeof describeFake = hasKernels ? describeFake : describe.skip
const symmetric: CudaKvCacheSpec = {
  numLayers: 2,
  numKeyValueHeads: 4,
  headDim: 128,
  format: { dtype: 'int4', symmetric: true, scale: 'bf16' },
}
const asymmetric: CudaKvCacheSpec = { ...symmetric, format: { dtype: 'int4', symmetric: false, scale: 'e4m3' } }

describeKernels('attention on a pretended GPU', () => {
  let driver: FakeDriver
  let device: CudaDevice
  let stream: CudaStream
  let made: { dispose(): void }[]

  beforeEach(() => {
    driver = fakeFactory().make()
    driver.setParameters([1]) // kernels of attention have their own
    device = CudaDevice.open({ library: driver.library })
    stream = device.createStream()
    made = []
  })

  afterEach(() => {
    driver.fail('', 0)
    for (const resource of made) resource.dispose()
    stream.dispose() // with what captures have made on it
    expect(device.memory().blocks).toBe(0)
    device.dispose()
    expect(driver.alive()).toEqual(nothing)
  })

  const keep = <T extends { dispose(): void }>(resource: T): T => {
    made.push(resource)
    return resource
  }
  const allocate = (bytes: number): CudaBuffer => keep(stream.allocate(bytes, 'x'))
  const makeCache = (spec = symmetric, pages = 40) => keep(CudaKvCache.create(device, stream, spec, { pages }))
  const makeBatch = async (cache: CudaKvCache, options: Partial<DecodeBatchOptions> = {}) =>
    keep(
      await DecodeBatch.create(stream, cache, {
        ...{ sequences: 3, pagesPerSequence: 8, numAttentionHeads: 8 },
        ...options,
      }),
    )
  const makePrefill = async (cache: CudaKvCache, sequences: readonly PrefillSequence[], numAttentionHeads = 16) =>
    keep(await PrefillBatch.create(stream, cache, { sequences, numAttentionHeads }))
  const operands = (rows: number, heads: number) => ({
    q: allocate(rows * heads * 128),
    qScale: allocate(rows * heads * 4),
    out: allocate(rows * heads * 256),
  })
  const words = (count: number) =>
    Array.from({ length: count }, (_, i) => Number(driver.lastArguments().getBigUint64(8 * i, true)))
  const ints = (from: number, count: number) =>
    Array.from({ length: count }, (_, i) => driver.lastArguments().getInt32(from + 4 * i, true))
  const shape = () => ({
    grid: [0, 1, 2].map((i) => driver.get('grid', i)),
    threads: driver.get('block', 0),
    shared: driver.get('sharedBytes'),
    dependent: driver.get('dependent'),
  })
  /** Device memory is host memory there: what a kernel would find at an address. */
  const contents = async (buffer: CudaBuffer) => [
    ...(await stream.download(buffer, new Int32Array(buffer.bytes / 4), 'contents')),
  ]

  describe('the cache', () => {
    it('has 132 bytes a token and head, keys and values together', () => {
      const cache = makeCache()
      expect(cache).toMatchObject({ pages: 40, pageSize: 64, bytes: 2 * 40 * 4 * 64 * 132 })
      expect(cache.layer(1, 'x').bytes).toBe(40 * 4 * 64 * 132)
      expect(device.memory().blocks).toBe(2)
      cache.dispose()
      cache.dispose()
      expect(device.memory().blocks).toBe(0)
    })

    it.each([
      [{ ...symmetric, headDim: 80 }, 4, 'expected headDim 64 or 128 but received 80'],
      [
        { ...symmetric, numKeyValueHeads: 0 },
        4,
        'numKeyValueHeads to be a whole number from 1 to 65535 but received 0',
      ],
      [{ ...symmetric, numLayers: 1.5 }, 4, 'expected numLayers to be a whole number'],
      [symmetric, 0, 'expected pages to be a whole number from 1 to 33554431 but received 0'],
      [{ ...symmetric, format: { dtype: 'f32' } }, 4, 'asymmetric with E4M3 ones, E4M3 or BF16 but received F32'],
      [
        { ...symmetric, format: { ...symmetric.format, scale: 'e4m3' } },
        4,
        'received INT4, symmetric with E4M3 scales',
      ],
      [
        { ...asymmetric, format: { ...asymmetric.format, scale: 'bf16' } },
        4,
        'received INT4, asymmetric with BF16 scales',
      ],
    ] as [CudaKvCacheSpec, number, string][])('refuses %j with %d pages', (spec, pages, message) => {
      expect(() => makeCache(spec, pages)).toThrow(message)
    })

    it.each(layouts)(
      'has the bytes of its layout: $codeBits bits, heads of $headDim',
      ({ format, headDim, pageBytes }) => {
        const cache = makeCache({ numLayers: 1, numKeyValueHeads: 3, headDim, format }, 5)
        expect(cache.bytes).toBe(5 * 3 * pageBytes)
      },
    )

    it('gives back what it took when memory runs out', () => {
      driver.fail('cuMemAlloc_v2', 2, 1)
      expect(() => makeCache(symmetric, 400)).toThrow(
        /KV cache of 2 layers, 4 heads of 128, 400 pages: layer 1: out of GPU memory/,
      )
    })
  })

  describe('the store kernel', () => {
    const given = (cache: CudaKvCache, tokens: number, heads: number): RopeStoreKv => ({
      cache,
      layer: 1,
      numAttentionHeads: heads,
      tokens,
      qkv: allocate(tokens * (heads + 8) * 256),
      positions: allocate(tokens * 4),
      slots: allocate(tokens * 4),
      inverseFrequencies: allocate(256),
      q: allocate(tokens * heads * 128),
      qScale: allocate(tokens * heads * 4),
    })

    it.each([symmetric, asymmetric])('is launched with its parameters in order: %#', (spec) => {
      const op = {
        ...given(makeCache(spec), 1000, 44),
        keyScale: allocate(2048),
        queryScale: allocate(2048),
        dependent: true,
      }
      ropeStoreKv(stream, op)
      // Four tokens a block: two times 6 + 2 steps of eight heads. ⌈528 / 250⌉ parts.
      expect(shape()).toEqual({ grid: [250, 3, 1], threads: 128, shared: 16384, dependent: 1 })
      expect(new Set(words(9)).size).toBe(9)
      expect(words(9).every((address) => address > 0)).toBe(true)
      expect(ints(72, 4)).toEqual([1000, 44, 4, 0])
    })

    it('takes no scaling, few tokens, and none', () => {
      const op = given(makeCache(), 3, 8)
      ropeStoreKv(stream, op)
      expect(shape()).toMatchObject({ grid: [1, 2, 1], dependent: 0 }) // six steps of four warps
      expect(words(9).map((address) => address > 0)).toEqual([true, true, true, true, false, false, true, true, true])
      const before = driver.get('launches')
      ropeStoreKv(stream, { ...op, tokens: 0 })
      expect(driver.get('launches')).toBe(before)
    })

    it('says what it does not take', () => {
      const op = given(makeCache(), 3, 8)
      const refused = (changes: Partial<RopeStoreKv>) => expect(() => ropeStoreKv(stream, { ...op, ...changes }))
      const what = 'ropeStoreKv of qkv [3, 2048], 8/4 heads: '
      refused({ layer: 2 }).toThrow(`${what}expected a layer from 0 to 1 but received 2`)
      refused({ tokens: -1 }).toThrow('expected tokens to be a whole number')
      refused({ numAttentionHeads: 6 }).toThrow('one of 4 key-value heads each but received 6')
      refused({ keyScale: op.q }).toThrow('expected keyScale and queryScale or neither but received keyScale alone')
      refused({ queryScale: op.q }).toThrow('but received queryScale alone')
      refused({ keyScale: op.q, queryScale: op.slots }).toThrow(
        'expected queryScale of at least 2048 bytes but received 12',
      )
      const short = allocate(4)
      for (const name of ['qkv', 'positions', 'slots', 'inverseFrequencies', 'q', 'qScale'] as const) {
        refused({ [name]: short }).toThrow(`${what}expected ${name} of at least`)
      }
      expect(driver.get('launches')).toBe(0)
    })
  })

  describe('decoding', () => {
    it.each([
      { spec: symmetric, heads: 32, newTokens: 1, parts: 1 },
      { spec: asymmetric, heads: 16, newTokens: 4, parts: 1 },
      { spec: { ...symmetric, headDim: 64 }, heads: 32, newTokens: 8, parts: 4 },
      { spec: { ...symmetric, format: { dtype: 'bf16' } }, heads: 8, newTokens: 1, parts: 1 },
      { spec: { ...symmetric, headDim: 64, format: { dtype: 'e4m3' } }, heads: 8, newTokens: 1, parts: 1 },
    ] as const)('is launched with its parameters in order: %#', async ({ spec, heads, newTokens, parts }) => {
      const batch = await makeBatch(makeCache(spec), { newTokens, numAttentionHeads: heads })
      attendDecode(stream, { batch, layer: 0, ...operands(3 * newTokens, heads), dependent: heads === 8 })
      expect(shape()).toEqual({ grid: [132, 1, 1], threads: 128, shared: 67584, dependent: Number(heads === 8) })
      expect(new Set(words(10)).size).toBe(10)
      expect(ints(80, 5)).toEqual([heads, 4, heads / 4, newTokens, 8])
      expect(driver.lastArguments().getFloat32(100, true)).toBe(Math.fround(spec.headDim ** -0.5))
      expect(batch.shape).toEqual({ keyHeads: 4, parts, blocks: 132, warps: 4 })
      expect(batch.tables.partial.bytes).toBe(2 * 132 * 8320)
    })

    it('has its tables on the device, and nothing else when they change', async () => {
      const batch = await makeBatch(makeCache(), { newTokens: 2 })
      const { pageTable, runs, pieces, merges, arrived } = batch.tables
      const plan = (sequences: KvSequence[]) =>
        planDecode([...sequences, ...new Array<KvSequence>(3 - sequences.length).fill(none)], batch.shape)
      const planned = async (expected: DecodePlan) => {
        expect(await contents(runs)).toEqual([...expected.runs])
        expect(await contents(merges)).toEqual([...expected.merges])
        expect((await contents(pieces)).slice(0, expected.pieces.length)).toEqual([...expected.pieces])
      }
      const none = { pages: [], length: 0 }
      expect(await contents(pageTable)).toEqual(new Array(24).fill(-1))
      expect(await contents(arrived)).toEqual(new Array(132 * batch.kernel.info.queries).fill(0))
      expect(await contents(batch.slots)).toEqual(new Array(6).fill(-1))
      await planned(plan([]))
      const op = { batch, layer: 0, ...operands(6, 8) }
      using graph = stream.capture(() => attendDecode(stream, op))
      const blocks = device.memory().blocks
      const sequences = [{ pages: [7, 39, 3], length: 129 }, none, { pages: [7, 0], length: 66 }]
      await batch.update(stream, sequences)
      const left = (count: number) => new Array<number>(count).fill(-1)
      expect(await contents(pageTable)).toEqual([7, 39, 3, ...left(13), 7, 0, ...left(6)])
      expect(await contents(batch.positions)).toEqual([127, 128, 0, 0, 64, 65])
      expect(await contents(batch.slots)).toEqual([39 * 64 + 63, 3 * 64, -1, -1, 0, 1])
      await planned(plan(sequences))
      expect(driver.get('launches')).toBe(0)
      stream.replay(graph, 'decode')
      expect(driver.get('launches')).toBe(1)
      await batch.update(stream, [{ pages: [1], length: 2 }])
      await planned(plan([{ pages: [1], length: 2 }]))
      expect(device.memory().blocks).toBe(blocks)
    })

    it('has room for the plan of any lengths', async () => {
      const batch = await makeBatch(makeCache(), { sequences: 5 })
      const pages = [0, 1, 2, 3, 4, 5, 6, 7]
      for (const lengths of [[512, 512, 512, 512, 512], [512], [1, 2, 3, 4, 5], [0, 512, 0, 33, 0]]) {
        // One new token each, so that sequences may share pages but the last.
        const sequences = lengths.map((length, s) => {
          const own = pages.map((page) => 8 * s + page)
          return { length, pages: own }
        })
        await batch.update(stream, sequences)
        const planned = planDecode(
          [...sequences, ...new Array(5 - lengths.length).fill({ length: 0, pages: [] })],
          batch.shape,
        )
        expect((await contents(batch.tables.pieces)).slice(0, planned.pieces.length)).toEqual([...planned.pieces])
      }
    })

    it('says what it does not take', async () => {
      const cache = makeCache()
      await expect(makeBatch(cache, { sequences: 0 })).rejects.toThrow(
        'decode batch of 0 sequences of 8 pages, 8 attention heads: expected sequences',
      )
      await expect(makeBatch(cache, { pagesPerSequence: 41 })).rejects.toThrow('from 1 to 40 but received 41')
      await expect(makeBatch(cache, { newTokens: 0 })).rejects.toThrow('expected newTokens to be a whole number from 1')
      await expect(makeBatch(cache, { numAttentionHeads: 5 })).rejects.toThrow(
        'one of 4 key-value heads each but received 5',
      )
      await expect(makeBatch(cache, { multiprocessors: 133 })).rejects.toThrow('from 1 to 132 but received 133')
      const batch = await makeBatch(cache, { newTokens: 2 })
      const what = 'decode batch of 3 sequences of 8 pages'
      const refused = async (message: string, ...sequences: { pages: number[]; length: number }[]) =>
        expect(batch.update(stream, sequences)).rejects.toThrow(message)
      await refused(`${what}, sequence 0: expected its length to be a whole number from 0 to 512 but received 513`, {
        pages: [0, 1, 2, 3, 4, 5, 6, 7, 8],
        length: 513,
      })
      await refused(`${what}, sequence 0: expected 2 pages for 65 tokens but received 1`, { pages: [3], length: 65 })
      await refused(`${what}, sequence 0: expected page 1 to be a whole number from 0 to 39 but received 40`, {
        pages: [3, 40],
        length: 65,
      })
      await refused('expected none or at least its 2 new tokens but received 1', { pages: [3], length: 1 })
      const same = { pages: [5], length: 9 }
      await refused(
        `sequence 1: expected page 5 to take new tokens of one sequence but received those of sequence 0`,
        same,
        same,
      )
      const empty = { pages: [], length: 0 }
      await refused('expected at most 3 sequences but received 4', empty, empty, empty, empty)

      const op = { batch, layer: 0, ...operands(6, 8) }
      const throws = (changes: Partial<typeof op> & { softmaxScale?: number }) =>
        expect(() => attendDecode(stream, { ...op, ...changes }))
      const decode = 'attendDecode of q [6, 8, 128], 4 key-value heads: '
      throws({ layer: -1 }).toThrow(`${decode}expected a layer from 0 to 1 but received -1`)
      throws({ softmaxScale: Number.NaN }).toThrow('expected a positive softmaxScale but received NaN')
      const short = allocate(4)
      for (const name of ['q', 'qScale', 'out'] as const) {
        throws({ [name]: short }).toThrow(`${decode}expected ${name} of at least`)
      }
      expect(driver.get('launches')).toBe(0)
    })

    it('gives back what it took when memory runs out or an upload fails, and says for what', async () => {
      const cache = makeCache()
      const blocks = device.memory().blocks
      driver.fail('cuMemcpyHtoDAsync_v2', 700, 2)
      await expect(makeBatch(cache)).rejects.toThrow(/decode batch of 3 sequences of 8 pages/)
      driver.fail('', 0)
      expect(device.memory().blocks).toBe(blocks)
      driver.fail('cuMemAlloc_v2', 2)
      await expect(makeBatch(cache, { sequences: 4000, pagesPerSequence: 40 })).rejects.toThrow(
        /decode batch of 4000 sequences of 40 pages, 8 attention heads: \w+: out of GPU memory/,
      )
    })
  })

  describe('prefill', () => {
    const sequences = [
      { pages: [4, 9, 2], length: 130, newTokens: 130 },
      { pages: [30], length: 40, newTokens: 8 },
    ]

    const e4m3: CudaKvCacheSpec = { ...symmetric, format: { dtype: 'e4m3' } }

    it.each([symmetric, asymmetric, e4m3])('decodes tiles, then attends, the parameters in order: %#', async (spec) => {
      const batch = await makePrefill(makeCache(spec), sequences)
      expect(batch).toMatchObject({ tokens: 138, pagesPerSequence: 3, tileCount: 3, workCount: 3 * 16 })
      expect(await contents(batch.tables.pageTable)).toEqual([4, 9, 2, 30, -1, -1])
      expect((await contents(batch.positions)).slice(128)).toEqual([128, 129, 32, 33, 34, 35, 36, 37, 38, 39])
      expect((await contents(batch.slots)).slice(126)).toEqual([
        ...[9 * 64 + 62, 9 * 64 + 63, 2 * 64, 2 * 64 + 1],
        ...[32, 33, 34, 35, 36, 37, 38, 39].map((place) => 30 * 64 + place),
      ])
      const op = { batch, layer: 1, ...operands(138, 16), softmaxScale: 0.25, dependent: true }
      // The second launch fails: what is left is the first one's.
      driver.fail('cuLaunchKernelEx', 1, 1)
      expect(() => attendPrefill(stream, op)).toThrow(
        /attendPrefill of q \[138, 16, 128\], 4 key-value heads: .*INVALID_VALUE/,
      )
      expect(shape()).toEqual({ grid: [3, 4, 1], threads: 128, shared: 52000, dependent: 1 })
      const decoded = words(4)[3]
      expect(new Set(words(4)).size).toBe(4)
      expect(ints(32, 2)).toEqual([4, 3])
      driver.fail('', 0)
      attendPrefill(stream, op)
      expect(shape()).toEqual({ grid: [48, 1, 1], threads: 384, shared: 150000, dependent: 1 })
      expect(new Set(words(5)).size).toBe(5)
      expect(words(5)[2]).toBe(decoded)
      expect(ints(40, 3)).toEqual([48, 16, 4])
      expect(driver.lastArguments().getFloat32(52, true)).toBe(0.25)
      expect(batch.tables.decoded.bytes).toBe(3 * 4 * 33792)
    })

    it('takes new tokens from an E4M3 cache', async () => {
      const chunk = makeCache(e4m3, 9)
      const old = makeCache()
      const create = (...given: PrefillSequence[]) =>
        PrefillBatch.create(stream, old, { sequences: given, numAttentionHeads: 16, chunk })
      const batch = keep(
        await create(
          { pages: [4, 9, 2], length: 130, newTokens: 60, chunkPages: [8, 3] },
          { pages: [30], length: 40, newTokens: 0 },
          { pages: [31], length: 40, newTokens: 2, chunkPages: [5] },
        ),
      )
      expect(await contents(batch.tables.chunkPageTable)).toEqual([-1, 8, 3, -1, -1, -1, 5, -1, -1])
      const slots = await contents(batch.chunkSlots)
      expect(slots.slice(0, 2)).toEqual([8 * 64 + 6, 8 * 64 + 7])
      expect(slots.slice(57)).toEqual([8 * 64 + 63, 3 * 64, 3 * 64 + 1, 5 * 64 + 38, 5 * 64 + 39].slice(0))
      const op = { batch, layer: 1, ...operands(62, 16) }
      driver.fail('cuLaunchKernelEx', 1, 1)
      expect(() => attendPrefill(stream, op)).toThrow('INVALID_VALUE')
      expect(ints(32, 2)).toEqual([4, 3])
      const pointers = [...words(4), ...[40, 48].map((at) => Number(driver.lastArguments().getBigUint64(at, true)))]
      expect(new Set(pointers).size).toBe(6)
      expect(pointers[4]).not.toBe(pointers[0])
      driver.fail('', 0)
      const refused = (sequence: PrefillSequence) => expect(create(sequence)).rejects
      const given = { pages: [4, 9, 2], length: 130, newTokens: 60 }
      await refused(given).toThrow('sequence 0: expected 2 chunkPages for 60 new tokens but received 0')
      await refused({ ...given, chunkPages: [0, 9] }).toThrow('expected chunk page 1 to be a whole number from 0 to 8')
      for (const spec of [symmetric, { ...e4m3, headDim: 64 }, { ...e4m3, numLayers: 1 }]) {
        const wrong = PrefillBatch.create(stream, old, { sequences, numAttentionHeads: 16, chunk: makeCache(spec) })
        await expect(wrong).rejects.toThrow("expected a chunk's cache in e4m3, 2 layers, 4 heads of 128 but received")
      }
      const twice = PrefillBatch.create(stream, chunk, { sequences: [], numAttentionHeads: 16, chunk })
      await expect(twice).rejects.toThrow('expected a cache that attention_tiles_chunk takes but received E4M3')
    })

    it('takes heads of 64', async () => {
      const batch = await makePrefill(makeCache({ ...symmetric, headDim: 64 }), sequences)
      const buffers = { q: allocate(138 * 16 * 64), qScale: allocate(138 * 16 * 4), out: allocate(138 * 16 * 128) }
      attendPrefill(stream, { batch, layer: 1, ...buffers })
      expect(shape()).toMatchObject({ grid: [48, 1, 1], threads: 384 })
      expect(driver.lastArguments().getFloat32(52, true)).toBe(64 ** -0.5)
      expect(() => attendPrefill(stream, { batch, layer: 1, ...buffers, q: buffers.qScale })).toThrow(
        'attendPrefill of q [138, 16, 64], 4 key-value heads: expected q of at least 141312 bytes but received 8832',
      )
    })

    it('attends to a BF16 cache directly, in one launch without tiles', async () => {
      const batch = await makePrefill(makeCache({ ...symmetric, format: { dtype: 'bf16' } }), sequences)
      expect(batch.tables.decoded.bytes).toBe(0)
      const op = { batch, layer: 1, ...operands(138, 16) }
      using graph = stream.capture(() => attendPrefill(stream, { ...op, dependent: true }))
      stream.replay(graph, 'prefill')
      expect(driver.get('launches')).toBe(1)
      expect(shape()).toMatchObject({ grid: [batch.workCount, 4, 1], threads: 256, dependent: 1 })
      expect(ints(48, 3)).toEqual([16, 4, batch.pagesPerSequence])
      expect(driver.lastArguments().getFloat32(60, true)).toBe(Math.fround(128 ** -0.5))
      expect(new Set(words(6)).size).toBe(6)
    })

    it('has a block a multiprocessor at most, can be captured, and does nothing for no new tokens', async () => {
      const cache = makeCache()
      const long = await makePrefill(cache, [
        { pages: Array.from({ length: 40 }, (_, i) => i), length: 2560, newTokens: 2560 },
      ])
      const op = { batch: long, layer: 0, ...operands(2560, 16) }
      using graph = stream.capture(() => attendPrefill(stream, op))
      expect(driver.get('launches')).toBe(0)
      stream.replay(graph, 'prefill')
      expect(driver.get('launches')).toBe(2)
      expect(shape()).toMatchObject({ grid: [132, 1, 1], dependent: 0 })
      using few = await PrefillBatch.create(stream, cache, { sequences, numAttentionHeads: 16, multiprocessors: 3 })
      expect([few.blocks, few.workCount % 3]).toEqual([3, 0])
      const none = await makePrefill(cache, [{ pages: [1], length: 5, newTokens: 0 }])
      attendPrefill(stream, { ...op, batch: none })
      attendPrefill(stream, { ...op, batch: await makePrefill(cache, []) })
      expect(driver.get('launches')).toBe(2)
    })

    it('says what it does not take', async () => {
      const cache = makeCache()
      const what = 'prefill batch of 1 sequences, 16 attention heads'
      const bf16 = makeCache({ ...symmetric, format: { dtype: 'bf16' } })
      await expect(makePrefill(bf16, sequences, 4 * 113)).rejects.toThrow(
        'prefill batch of 2 sequences, 452 attention heads: expected at most 112 attention heads a key-value head of a BF16 cache but received 113',
      )
      const chunk = makeCache(e4m3)
      await expect(PrefillBatch.create(stream, bf16, { sequences, numAttentionHeads: 16, chunk })).rejects.toThrow(
        'expected a cache that attention_tiles_chunk takes but received BF16, heads of 128',
      )
      const refused = (sequence: PrefillSequence, heads?: number) =>
        expect(makePrefill(cache, [sequence], heads)).rejects
      await refused({ pages: [1], length: 5, newTokens: 5 }, 6).toThrow('one of 4 key-value heads each but received 6')
      await refused({ pages: [1], length: 5, newTokens: 6 }).toThrow(
        `${what}, sequence 0: expected its new tokens to be a whole number from 0 to 5 but received 6`,
      )
      await refused({ pages: [1], length: 5, newTokens: -1 }).toThrow('but received -1')
      await refused({ pages: [1], length: Number.POSITIVE_INFINITY, newTokens: 1 }).toThrow('but received Infinity')
      await refused({ pages: [-1], length: 5, newTokens: 5 }).toThrow(
        'expected page 0 to be a whole number from 0 to 39',
      )
      await refused({ pages: [1], length: 65, newTokens: 5 }).toThrow('expected 2 pages for 65 tokens but received 1')
      await expect(
        PrefillBatch.create(stream, cache, { sequences, numAttentionHeads: 16, multiprocessors: 133 }),
      ).rejects.toThrow('from 1 to 132 but received 133')
      await expect(
        PrefillBatch.create(stream, bf16, { sequences, numAttentionHeads: 16, multiprocessors: 3 }),
      ).rejects.toThrow('expected no multiprocessors with a BF16 cache but received 3')
      const batch = await makePrefill(cache, [{ pages: [1], length: 5, newTokens: 5 }])
      const op = { batch, layer: 0, ...operands(5, 16) }
      expect(() => attendPrefill(stream, { ...op, layer: 9 })).toThrow('expected a layer from 0 to 1 but received 9')
      expect(() => attendPrefill(stream, { ...op, out: op.q })).toThrow(
        'attendPrefill of q [5, 16, 128], 4 key-value heads: expected out of at least 20480 bytes but received 10240',
      )
      expect(driver.get('launches')).toBe(0)
    })

    it('gives back what it took when an upload fails', async () => {
      const cache = makeCache()
      driver.fail('cuMemcpyHtoDAsync_v2', 700, 2)
      await expect(makePrefill(cache, sequences)).rejects.toThrow(
        /prefill batch of 2 sequences, 16 attention heads: work: /,
      )
      driver.fail('', 0)
      expect(device.memory().blocks).toBe(2)
    })
  })
})
