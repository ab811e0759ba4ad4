import { expect, it } from 'vitest'
import { BackendError, CpuBackend, ProgramBuilder, ReferenceBackend } from '../../src/index.js'
import type { NativeAddon, WeightHandle } from '../../src/native/addon-types.js'
import { requireAddon } from '../../src/native/load.js'
import { describeNative, hasAddon } from './support.js'

// Whatever the caller does wrong is a JavaScript error with a message, never a crash.

const kvSpec = { numLayers: 1, numKeyValueHeads: 1, headDim: 16, format: { dtype: 'f32' } } as const

function copyProgram() {
  const p = new ProgramBuilder('copy')
  p.input('x', 'f32', ['tokens', 4])
  p.output('out', 'f32', ['tokens', 4])
  p.op('tap', { x: 'x', out: 'out' }, {})
  return p.build()
}

describeNative('wrong use of the cpu backend', () => {
  const backend = hasAddon ? new CpuBackend({ threads: 2 }) : (undefined as never)
  const compiled = async () => backend.compile(copyProgram(), await backend.loadWeights({}, async () => never()))
  const never = (): never => {
    throw new Error('no weight is asked for')
  }

  it('a feed of the wrong type, length or name', async () => {
    const executable = await compiled()
    await expect(executable.run({})).rejects.toThrow("expected a Float32Array for input 'x' but received nothing")
    await expect(executable.run({ x: new Int32Array(4) })).rejects.toThrow('Float32Array')
    await expect(executable.run({ x: new Float32Array(5) })).rejects.toThrow("can't have 5 elements")
    await expect(executable.run({ x: new Float32Array(4), y: new Float32Array(1) })).rejects.toThrow("'y'")
  })

  it('a shared or detached array', async () => {
    const executable = await compiled()
    const shared = new Float32Array(new SharedArrayBuffer(16))
    await expect(executable.run({ x: shared })).rejects.toThrow('must not be shared between threads')
    const detached = new Float32Array(4)
    structuredClone(detached, { transfer: [detached.buffer] })
    await expect(executable.run({ x: detached })).rejects.toThrow("the ArrayBuffer of buffer 'x' is detached")
  })

  it('an input that is transferred away or overwritten while the run is on', async () => {
    const executable = await compiled()
    const x = Float32Array.from({ length: 4000 }, (_, i) => i)
    const run = executable.run({ x })
    x.fill(-1)
    structuredClone(x, { transfer: [x.buffer] })
    expect((await run).out).toEqual(Float32Array.from({ length: 4000 }, (_, i) => i))
  })

  it('handles that were disposed, or belong to another backend', async () => {
    const program = copyProgram()
    const weights = await backend.loadWeights({}, async () => never())
    const executable = await backend.compile(program, weights)
    executable.dispose()
    executable.dispose()
    await expect(executable.run({ x: new Float32Array(4) })).rejects.toThrow("'copy' is run after it was disposed")
    const reference = new ReferenceBackend()
    await expect(backend.compile(program, await reference.loadWeights({}, async () => never()))).rejects.toThrow(
      'loaded by another backend',
    )
    const other = await compiled()
    const foreign = reference.createKvCache(kvSpec, { pages: 1, pageSize: 4 })
    await expect(other.run({ x: new Float32Array(4) }, { kv: foreign })).rejects.toThrow('made by another backend')
    const kv = backend.createKvCache(kvSpec, { pages: 1, pageSize: 4 })
    expect(kv.bytes).toBeGreaterThan(0)
    kv.dispose()
    kv.dispose()
    expect(kv.bytes).toBe(0)
  })

  it('a weight set that was disposed', async () => {
    const p = new ProgramBuilder('norm')
    p.input('x', 'f32', ['tokens', 2])
    p.output('out', 'f32', ['tokens', 2])
    p.op('rmsNorm', { x: 'x', weight: p.weight('w', [2]), out: 'out' }, { eps: 0 })
    const program = p.build()
    const tensor = { kind: 'dense', dtype: 'f32', shape: [2], data: Float32Array.of(1, 2) } as const
    const weights = await backend.loadWeights(program.weights, async () => tensor)
    const executable = await backend.compile(program, weights)
    weights.dispose()
    weights.dispose()
    await expect(backend.compile(program, weights)).rejects.toThrow("'w' is used after its weight set was disposed")
    const { out } = await executable.run({ x: Float32Array.of(1, 1) }) // it keeps what it needs
    expect(out).toEqual(Float32Array.of(1, 2))
  })

  it('a backend that was disposed, also in the middle of work', async () => {
    const own = new CpuBackend({ threads: 2 })
    const executable = await own.compile(copyProgram(), await own.loadWeights({}, async () => never()))
    const runs = Array.from({ length: 20 }, () => executable.run({ x: new Float32Array(400_000) }))
    own.dispose()
    own.dispose()
    for (const result of await Promise.allSettled(runs)) {
      if (result.status === 'rejected') expect(String(result.reason)).toMatch(/aborted/)
    }
    await expect(executable.run({ x: new Float32Array(4) })).rejects.toThrow('the backend was disposed')
    expect(() => own.createKvCache(kvSpec, { pages: 1, pageSize: 1 })).toThrow('The cpu backend was disposed')
  })

  it('a KV cache of impossible size', () => {
    const make = (spec: object, size: { pages: number; pageSize: number }) => () =>
      backend.createKvCache({ ...kvSpec, ...spec }, size)
    expect(make({}, { pages: 0, pageSize: 4 })).toThrow(BackendError)
    expect(make({}, { pages: -1, pageSize: 4 })).toThrow('whole number')
    expect(make({ headDim: 0.5 }, { pages: 1, pageSize: 4 })).toThrow('whole number')
    expect(make({ numLayers: 2 ** 40 }, { pages: 2 ** 40, pageSize: 4 })).toThrow('fits in memory')
    expect(make({ numLayers: 2 ** 12 }, { pages: 2 ** 20, pageSize: 16 })).toThrow('out of memory')
  })

  it('threads and instruction sets that there are none of', () => {
    expect(() => new CpuBackend({ threads: 0 })).toThrow('Expected 1 to 1024 threads but received 0')
    expect(() => new CpuBackend({ isa: 'mmx' as 'avx2' })).toThrow("unknown instruction set 'mmx'")
  })

  it('ids, slots and pages computed inside the program, which no feed check sees', async () => {
    const p = new ProgramBuilder('computed')
    for (const name of ['logits', 'temperature', 'topP', 'uniform']) {
      p.input(name, 'f32', name === 'logits' ? ['outputs', 9] : ['outputs'])
    }
    p.input('topK', 'i32', ['outputs'])
    p.scratch('token', 'i32', ['outputs'])
    p.op(
      'sample',
      { logits: 'logits', temperature: 'temperature', topK: 'topK', topP: 'topP', uniform: 'uniform', token: 'token' },
      {},
    )
    p.output('out', 'f32', ['outputs', 2])
    p.op('embed', { tokens: 'token', table: p.weight('table', [4, 2]), out: 'out' }, {})
    const program = p.build()
    const table = { kind: 'dense', dtype: 'f32', shape: [4, 2], data: new Float32Array(8) } as const
    const executable = await backend.compile(program, await backend.loadWeights(program.weights, async () => table))
    const one = Float32Array.of(1)
    const feeds = { temperature: Float32Array.of(0), topP: one, uniform: Float32Array.of(0), topK: Int32Array.of(0) }
    const logits = Float32Array.of(0, 0, 0, 0, 0, 0, 0, 0, 1)
    await expect(executable.run({ ...feeds, logits })).rejects.toThrow(
      /'computed', op 1 \(embed, .*table \[4, 2\].*\): token 0 has id 8, outside the vocabulary of 4/,
    )
  })
})

describeNative('wrong calls of the addon itself', () => {
  const addon = hasAddon ? requireAddon() : (undefined as never as NativeAddon)
  const wrong = (value: unknown) => value as never

  it('objects that aren’t handles, or are other handles', () => {
    const backend = addon.createBackend({ threads: 1, isa: 'plain', poison: false })
    const weight = addon.createVector('f32', Float32Array.of(1))
    for (const value of [
      undefined,
      null,
      1,
      'x',
      {},
      [],
      () => 1,
      Object.create(backend),
      new Proxy(backend, {}),
      weight,
    ]) {
      expect(() => addon.packRows(wrong(value), weight, 0, Float32Array.of(1))).toThrow('expected a backend')
    }
    expect(() => addon.packRows(backend, wrong(backend), 0, Float32Array.of(1))).toThrow('expected a weight')
    expect(() => addon.bytesOf(wrong(backend))).toThrow('expected a KV cache')
    expect(() => addon.release(wrong({}))).toThrow('expected a handle')
    addon.release(weight)
    addon.release(weight)
    expect(() => addon.bytesOf(weight)).toThrow('the weight was disposed')
    addon.release(backend)
  })

  it('matrices and rows that don’t fit', () => {
    const backend = addon.createBackend({ threads: 1, isa: 'plain', poison: false })
    const spec = { format: 'f32', rows: 40, columns: 8, groupSize: 8 } as const
    for (const change of [{ rows: 0 }, { rows: 2 ** 31 }, { columns: -8 }, { groupSize: 3 }, { format: 'f64' }]) {
      expect(() => addon.createMatrix(wrong({ ...spec, ...change }))).toThrow(Error)
    }
    expect(() => addon.createMatrix({ ...spec, channelScale: new Float32Array(39) })).toThrow('channelScale')
    const matrix = addon.createMatrix(spec)
    const pack = (firstRow: number, values: unknown) => () => addon.packRows(backend, matrix, firstRow, wrong(values))
    expect(pack(0, new Float32Array(15 * 8))).toThrow('whole rows')
    expect(pack(1, new Float32Array(16 * 8))).toThrow('first row of a tile')
    expect(pack(48, new Float32Array(8))).toThrow('first row of a tile')
    expect(pack(32, new Float32Array(16 * 8))).toThrow('whole rows')
    expect(pack(0, new Float32Array(16 * 8 + 1))).toThrow('whole rows')
    expect(pack(0, new Uint16Array(16 * 8))).toThrow('another element type')
    expect(pack(0, [1, 2])).toThrow('expected a typed array')
    const groups: WeightHandle = addon.createMatrix({ format: 'int4', rows: 16, columns: 64, groupSize: 32 })
    const packInt4 = (codes: number, scales: number, groupSize: number) => () =>
      addon.packRows(backend, groups, 0, new Uint8Array(codes), new Float32Array(scales), 'f32', groupSize)
    expect(packInt4(511, 32, 32)).toThrow('whole rows')
    expect(packInt4(512, 31, 32)).toThrow('whole rows')
    expect(packInt4(512, 64, 16)).toThrow('groupSize that the matrix was made with')
    expect(packInt4(512, 64, 0)).toThrow('groupSize')
    addon.release(backend)
  })

  it('programs that don’t fit together', () => {
    const backend = addon.createBackend({ threads: 1, isa: 'plain', poison: false })
    const buffers = [{ name: 'x', dtype: 'f32', role: 'input', shape: [-1, 4] }]
    const op = (operands: object[], kind = 'tap') => ({ kind, operands, attributes: {} })
    const compile =
      (program: object, weights: unknown = []) =>
      () =>
        addon.compile(backend, wrong({ name: 'p', buffers, constants: [], ops: [], ...program }), wrong(weights))
    expect(compile({ ops: [op([], 'conv')] })).toThrow("no kernel for 'conv'")
    expect(compile({ ops: [op([{ role: 'x', kind: 'buffer', index: 1 }])] })).toThrow('outside of 1')
    expect(compile({ buffers: [{ ...buffers[0], shape: [-9] }] })).toThrow('dimension')
    expect(compile({ buffers: [{ ...buffers[0], dtype: 'f64' }] })).toThrow("unknown buffer type 'f64'")
    expect(compile({}, [{}])).toThrow('expected a weight')
    expect(compile({ ops: 3 })).toThrow('expected an array for ops')
    addon.release(backend)
  })
})
