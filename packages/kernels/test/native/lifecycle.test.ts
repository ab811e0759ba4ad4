import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { CpuBackend, ProgramBuilder } from '../../src/index.js'
import { loadAddon } from '../../src/native/load.js'
import { dense, Random } from '../conformance/random.js'
import { describeNative, hasAddon } from './support.js'

/** A chain of linears that takes long enough to be interrupted. */
function longProgram(count: number) {
  const p = new ProgramBuilder('long')
  p.input('x', 'f32', ['tokens', 512])
  let x = 'x'
  for (let i = 0; i < count; i++) {
    const out = i === count - 1 ? p.output('out', 'f32', ['tokens', 512]) : p.scratch(`h${i}`, 'f32', ['tokens', 512])
    p.op('linear', { x, weight: p.weight('w', [512, 512]), out }, {})
    x = out
  }
  return p.build()
}

describeNative('a run', () => {
  const backend = hasAddon ? new CpuBackend({ threads: 2, isa: 'plain' }) : (undefined as never)
  const program = longProgram(40)
  const tensor = dense(new Random(1), [512, 512], 'bf16')
  const compiled = async () => backend.compile(program, await backend.loadWeights(program.weights, async () => tensor))

  it('leaves the event loop alone', async () => {
    using executable = await compiled()
    let [ticks, longest, last] = [0, 0, performance.now()]
    const timer = setInterval(() => {
      longest = Math.max(longest, performance.now() - last)
      last = performance.now()
      ticks++
    }, 1)
    const begin = performance.now()
    await executable.run({ x: new Float32Array(512 * 200) })
    const seconds = performance.now() - begin
    clearInterval(timer)
    expect(seconds).toBeGreaterThan(20) // else this test proves nothing
    expect(ticks).toBeGreaterThan(5)
    expect(longest).toBeLessThan(seconds / 2)
  })

  it('stops within an op when it is aborted, with the reason, and the next one is whole', async () => {
    using executable = await compiled()
    const x = new Float32Array(512 * 200).fill(0)
    const begin = performance.now()
    await executable.run({ x })
    const whole = performance.now() - begin
    const controller = new AbortController()
    const reason = new Error('enough')
    const aborted = executable.run({ x }, { signal: controller.signal })
    const queued = executable.run({ x }, { signal: controller.signal })
    const next = executable.run({ x })
    await new Promise((resolve) => setTimeout(resolve, whole / 10))
    const abortedAt = performance.now()
    controller.abort(reason)
    await expect(aborted).rejects.toBe(reason)
    await expect(queued).rejects.toBe(reason)
    expect(performance.now() - abortedAt).toBeLessThan(whole / 2)
    expect((await next).out).toEqual(new Float32Array(512 * 200))
    await expect(executable.run({ x }, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
  })

  it('goes on while its weights and its program are disposed', async () => {
    const weights = await backend.loadWeights(program.weights, async () => tensor)
    const executable = await backend.compile(program, weights)
    const run = executable.run({ x: new Float32Array(512 * 20) })
    weights.dispose()
    executable.dispose()
    expect((await run).out).toEqual(new Float32Array(512 * 20))
  })

  it('can be aborted while weights load', async () => {
    const controller = new AbortController()
    const loading = backend.loadWeights(
      { a: { shape: [512, 512], parts: ['a'] }, b: { shape: [512, 512], parts: ['b'] } },
      async () => tensor,
      { signal: controller.signal, onProgress: () => controller.abort(new Error('enough')) },
    )
    await expect(loading).rejects.toThrow('enough')
  })
})

describeNative('a hundred times', () => {
  const status = (key: string): number =>
    Number(/\d+/.exec(readFileSync('/proc/self/status', 'utf8').split(`${key}:`)[1]!)![0])
  const megabytes = (): number => status('VmRSS') / 1024

  it('loading and disposing leaves memory and threads as they were', async () => {
    const tensor = dense(new Random(2), [1024, 1024], 'f32') // 4 MiB
    const program = longProgram(1)
    const once = async (): Promise<void> => {
      using backend = new CpuBackend({ threads: 3 })
      using weights = await backend.loadWeights({ w: { shape: [1024, 1024], parts: ['w'] } }, async () => tensor)
      using own = await backend.loadWeights(program.weights, async () => dense(new Random(3), [512, 512], 'bf16'))
      using executable = await backend.compile(program, own)
      const format = { dtype: 'int4', symmetric: false, scale: 'bf16' } as const
      const spec = { numLayers: 4, numKeyValueHeads: 4, headDim: 64, format }
      using kv = backend.createKvCache(spec, { pages: 64, pageSize: 16 })
      await executable.run({ x: new Float32Array(512 * 8) })
      expect(weights.bytes + kv.bytes).toBeGreaterThan(4 << 20)
    }
    for (let i = 0; i < 20; i++) await once()
    const [before, threads] = [megabytes(), status('Threads')]
    for (let i = 0; i < 100; i++) await once()
    expect(megabytes() - before).toBeLessThan(100) // a leak of the weights alone would be 400
    expect(status('Threads')).toBeLessThanOrEqual(threads + 1)
  })
})

describeNative('the process', () => {
  const fixture = fileURLToPath(new URL('fixtures/leave-mid-run.mjs', import.meta.url))
  const loaded = loadAddon()
  const from = loaded.addon === undefined ? '' : loaded.from

  it.each(['exit', 'worker', 'idle'])('ends cleanly: %s', (how) => {
    const path = from.endsWith('.node') ? from : fileURLToPath(import.meta.resolve(from))
    const { status, stdout, stderr, signal } = spawnSync(process.execPath, [fixture, path, how], {
      encoding: 'utf8',
      timeout: 30_000,
    })
    expect({ status, signal, stderr }).toEqual({ status: 0, signal: null, stderr: '' })
    expect(stdout).toBe('left\n')
  })
})
