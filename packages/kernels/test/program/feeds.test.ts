import { describe, expect, it } from 'vitest'
import { BackendError, type Feeds, ProgramBuilder, ReferenceBackend, type RunOptions } from '../../src/index.js'

const backend = new ReferenceBackend()
const spec = { numLayers: 1, numKeyValueHeads: 1, headDim: 4, format: { dtype: 'f32' } } as const

function attentionProgram() {
  const p = new ProgramBuilder('attend', spec)
  for (const name of ['queryEnds', 'contextLengths']) p.input(name, 'i32', ['sequences'])
  p.input('pageTable', 'i32', ['sequences', 'pages'])
  p.input('slots', 'i32', ['tokens'])
  for (const name of ['q', 'k', 'v']) p.input(name, 'f32', ['tokens', 4])
  p.output('out', 'f32', ['tokens', 4])
  p.op('storeKv', { k: 'k', v: 'v', slots: 'slots' }, { layer: 0 })
  const batch = { queryEnds: 'queryEnds', contextLengths: 'contextLengths', pageTable: 'pageTable' }
  p.op('attention', { q: 'q', ...batch, out: 'out' }, attrs)
  return p.build()
}

const attrs = { layer: 0, numAttentionHeads: 1, softmaxScale: 0.5, probabilities: 'f32' } as const

const good: Record<string, Int32Array | Float32Array> = {
  queryEnds: Int32Array.of(2),
  contextLengths: Int32Array.of(2),
  pageTable: Int32Array.of(1),
  slots: Int32Array.of(2, 3),
  q: new Float32Array(8).fill(1),
  k: new Float32Array(8).fill(1),
  v: Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8),
}

async function run(feeds: Feeds, options?: RunOptions) {
  const weights = await backend.loadWeights({}, () => Promise.reject(new Error('no weights')))
  const executable = await backend.compile(attentionProgram(), weights)
  return executable.run(feeds, options ?? { kv: backend.createKvCache(spec, { pages: 2, pageSize: 2 }) })
}

describe('feeds', () => {
  it('bind symbolic dimensions', async () => {
    const { out } = await run(good)
    expect([...out!]).toEqual([1, 2, 3, 4, 3, 4, 5, 6])
  })

  it.each<[string, Feeds, string]>([
    [
      'a missing feed',
      { ...good, q: undefined as never },
      "expected a Float32Array for input 'q' but received nothing",
    ],
    [
      'a wrong array type',
      { ...good, slots: new Float32Array(2) },
      "expected a Int32Array for input 'slots' but received Float32Array",
    ],
    ['a wrong length', { ...good, v: new Float32Array(9) }, "input 'v' of shape [tokens=2, 4] can't have 9 elements"],
    ['an unknown feed', { ...good, z: new Float32Array(1) }, "'z' is fed but is not an input"],
    [
      'a slot outside the cache',
      { ...good, slots: Int32Array.of(2, 4) },
      'token 1 goes to slot 4, outside a cache of 2 pages of 2',
    ],
    [
      'a page outside the cache',
      { ...good, pageTable: Int32Array.of(2) },
      'sequence 0 names page 2 of a cache of 2 pages',
    ],
    [
      'too few pages',
      { ...good, contextLengths: Int32Array.of(3) },
      'sequence 0 of 3 tokens needs 2 pages, but pageTable has 1 columns',
    ],
    [
      'a context shorter than its tokens',
      { ...good, contextLengths: Int32Array.of(1) },
      'sequence 0 has 2 new tokens but a context of 1',
    ],
    [
      'tokens that no sequence owns',
      { ...good, queryEnds: Int32Array.of(1) },
      'the sequences end at token 1, but the step has 2 tokens',
    ],
  ])('refuse %s', async (_, feeds, message) => {
    await expect(run(feeds)).rejects.toThrow(BackendError)
    await expect(run(feeds)).rejects.toThrow(message)
  })

  it('refuse a missing, foreign or disposed KV cache', async () => {
    await expect(run(good, {})).rejects.toThrow('needs a KV cache, but none was given')
    const other = backend.createKvCache({ ...spec, headDim: 8 }, { pages: 2, pageSize: 2 })
    await expect(run(good, { kv: other })).rejects.toThrow('needs a KV cache with headDim 4, but it has 8')
    const disposed = backend.createKvCache(spec, { pages: 2, pageSize: 2 })
    disposed.dispose()
    disposed.dispose()
    await expect(run(good, { kv: disposed })).rejects.toThrow('disposed')
  })

  it('hear an abort', async () => {
    const controller = new AbortController()
    const kv = backend.createKvCache(spec, { pages: 2, pageSize: 2 })
    const result = run(good, { kv, signal: controller.signal })
    controller.abort(new Error('enough'))
    await expect(result).rejects.toThrow('enough')
  })
})
