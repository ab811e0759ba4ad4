import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type GenerateOptions, KvPoolFullError, LanguageModel, seededUniform } from '../src/index.js'
import { backends } from './support/backends.js'
import { randomIds, randomSource } from './support/memory-source.js'

const plan = { compute: 'f32' } as const
const prompt = [...randomIds(9, 40, 5)]

async function collect(stream: AsyncGenerator<number, string, void>): Promise<{ ids: number[]; reason: string }> {
  const ids: number[] = []
  for (;;) {
    const { value, done } = await stream.next()
    if (done) return { ids, reason: value as string }
    ids.push(value)
  }
}

function expectIdle({ pool }: LanguageModel): void {
  pool.checkIntegrity()
  expect(pool.freePages).toBe(pool.pages)
}

describe.each(backends)('generation on $name', ({ backend }) => {
  const load = (options = {}): Promise<LanguageModel> =>
    LanguageModel.load(randomSource(), backend, { plan, pageSize: 4, ...options })

  test('greedy takes the largest logit each time, whatever the chunks and pages', async () => {
    using model = await load()
    const { ids } = await collect(model.generate(prompt, { maxTokens: 12 }))
    const text = [...prompt, ...ids]
    const { vocabSize } = model.config
    const logits = await model.logits(text)
    ids.forEach((id, i) => {
      const at = (prompt.length - 1 + i) * vocabSize
      const row = [...logits.subarray(at, at + vocabSize)]
      expect(id).toBe(row.indexOf(Math.max(...row)))
    })
    for (const options of [
      { chunkTokens: 1 },
      { chunkTokens: 4 },
      { chunkTokens: 9 },
      { pageSize: 1 },
      { pageSize: 64 },
    ]) {
      using other = await load(options)
      expect((await collect(other.generate(prompt, { maxTokens: 12 }))).ids).toEqual(ids)
      expectIdle(other)
    }
  })

  test('ends at maxTokens, at a stop id, and at the end of the context', async () => {
    using model = await load()
    const { ids, reason } = await collect(model.generate(prompt, { maxTokens: 6 }))
    expect([ids.length, reason]).toEqual([6, 'length'])
    expect(await collect(model.generate(prompt, { maxTokens: 0 }))).toEqual({ ids: [], reason: 'length' })
    const stop = [ids[3]!]
    const expected = { ids: ids.slice(0, ids.indexOf(stop[0]!)), reason: 'stop' }
    expect(await collect(model.generate(prompt, { maxTokens: 6, stop }))).toEqual(expected)
    // The last token's id needs no place of its own: 64 positions end with the 65th id.
    const all = await collect(model.generate(prompt))
    expect([all.ids.length, all.reason]).toEqual([64 - prompt.length + 1, 'length'])
    expectIdle(model)
  })

  test('stops at the ids of the config if none are given', async () => {
    using model = await load()
    const { ids } = await collect(model.generate(prompt, { maxTokens: 6 }))
    using stopping = await LanguageModel.load(randomSource({ eosTokenIds: [ids[2]!] }), backend, { plan })
    expect((await collect(stopping.generate(prompt, { maxTokens: 6 }))).reason).toBe('stop')
    expect((await collect(stopping.generate(prompt, { maxTokens: 6, stop: [] }))).ids).toEqual(ids)
  })

  test('a seed fixes what is drawn; topK 1 is greedy', async () => {
    using model = await load()
    const draw = async (options: GenerateOptions): Promise<number[]> =>
      (await collect(model.generate(prompt, { maxTokens: 16, temperature: 2, ...options }))).ids
    const first = await draw({ seed: 1 })
    expect(await draw({ seed: 1 })).toEqual(first)
    expect(await draw({ seed: 2 })).not.toEqual(first)
    const greedy = await draw({ temperature: 0 })
    expect(await draw({ topK: 1, seed: 3 })).toEqual(greedy)
    expect(await draw({ topP: 1e-6, seed: 3 })).toEqual(greedy)
  })

  test('draws from the distribution of the logits', async () => {
    using model = await load({ kvTokens: 4096 })
    const last = await model.logits(prompt, { rows: [prompt.length - 1] })
    const weights = Array.from(last, (v) => Math.exp(v / 0.7))
    const total = weights.reduce((sum, w) => sum + w, 0)
    const uniform = seededUniform(11)
    const counts = new Float64Array(weights.length)
    const draws = 1000
    for (let i = 0; i < draws / 100; i++) {
      const entries = Array.from({ length: 100 }, () => ({
        sequence: model.pool.open(),
        tokens: prompt,
        sampling: { temperature: 0.7, topK: 0, topP: 1, uniform: uniform() },
      }))
      for (const [id] of await model.sample(entries)) counts[id!]!++
      for (const entry of entries) model.pool.close(entry.sequence)
    }
    expectIdle(model)
    counts.forEach((count, id) => {
      const p = weights[id]! / total
      expect(Math.abs(count / draws - p), `token ${id}`).toBeLessThan(5 * Math.sqrt((p * (1 - p)) / draws) + 1e-3)
    })
  })

  test('an abort before, during and between steps rejects with its reason and frees the sequence', async () => {
    using model = await load({ chunkTokens: 2 })
    const before = AbortSignal.abort(new Error('never'))
    await expect(collect(model.generate(prompt, { signal: before }))).rejects.toThrow('never')
    for (const tokensFirst of [0, 1, 5]) {
      const controller = new AbortController()
      const stream = model.generate(prompt, { signal: controller.signal })
      for (let i = 0; i < tokensFirst; i++) expect((await stream.next()).done).toBe(false)
      const next = stream.next()
      await Promise.resolve()
      controller.abort(new Error('during'))
      await expect(next).rejects.toThrow('during')
      expectIdle(model)
    }
    const controller = new AbortController()
    const stream = model.generate(prompt, { signal: controller.signal })
    await stream.next()
    controller.abort(new Error('between'))
    await expect(stream.next()).rejects.toThrow('between')
    expectIdle(model)
    for await (const _ of model.generate(prompt)) break
    expectIdle(model)
    expect((await collect(model.generate(prompt, { maxTokens: 2 }))).ids).toHaveLength(2)
  })

  test('an aborted step leaves its sequences as they were, and they go on', async () => {
    using model = await load()
    const sequence = model.pool.open()
    const [head, tail] = [prompt.slice(0, 4), prompt.slice(4)]
    await model.forward([{ sequence, tokens: head }])
    const controller = new AbortController()
    const step = model.forward([{ sequence, tokens: tail }], { signal: controller.signal })
    const second = model.forward([{ sequence, tokens: tail }])
    controller.abort(new Error('aborted'))
    await expect(second).rejects.toThrow('a step of it is running')
    await expect(step).rejects.toThrow('aborted')
    expect([sequence.length, sequence.pages.length]).toEqual([4, 1])
    const [logits] = await model.forward([{ sequence, tokens: tail }])
    expect(logits).toEqual(await model.logits(prompt, { rows: [prompt.length - 1] }))
  })

  test('a prompt that can never fit is refused, with the limit', async () => {
    using model = await load()
    await expect(collect(model.generate(randomIds(65, 40, 1)))).rejects.toThrow('at most 64 tokens')
    await expect(model.logits(randomIds(65, 40, 1))).rejects.toThrow('but received 65')
    using small = await load({ kvTokens: 8 })
    await expect(collect(small.generate(prompt))).rejects.toThrow('at most 8 tokens')
    expect((await collect(small.generate(prompt.slice(0, 5)))).ids).toHaveLength(4)
    await expect(collect(model.generate([]))).rejects.toThrow('at least one token')
    await expect(collect(model.generate([3, 40]))).rejects.toThrow('ids below 40 but token 1')
    await expect(collect(model.generate([3, -1]))).rejects.toThrow('received -1')
    expectIdle(model)
    expectIdle(small)
  })

  test('generations that together outgrow the cache: one fails and says why, the other goes on', async () => {
    using model = await load({ kvTokens: 24 })
    const results = await Promise.allSettled([1, 2].map(() => collect(model.generate(prompt, { maxTokens: 12 }))))
    const failures = results.flatMap((r) => (r.status === 'rejected' ? [r.reason] : []))
    expect(failures).toHaveLength(1)
    expect(failures[0]).toBeInstanceOf(KvPoolFullError)
    expect(results.find((r) => r.status === 'fulfilled')!.value.ids).toHaveLength(12)
    expectIdle(model)
  })

  test.each([
    [{ temperature: -1 }, 'finite number ≥ 0 for temperature but received -1'],
    [{ temperature: Number.NaN }, 'temperature but received NaN'],
    [{ topK: 1.5 }, 'topK but received 1.5'],
    [{ topP: 0 }, 'topP but received 0'],
    [{ maxTokens: -1 }, 'maxTokens but received -1'],
    [{ seed: 0.5 }, 'seed but received 0.5'],
  ])('refuses %j', async (options, message) => {
    using model = await load()
    await expect(collect(model.generate(prompt, options))).rejects.toThrow(message)
  })

  test('whatever comes and goes, the pool stays whole and texts stay the same', async () => {
    using model = await LanguageModel.load(randomSource({ numHiddenLayers: 1 }), backend, {
      plan,
      pageSize: 3,
      kvTokens: 60,
      chunkTokens: 4,
    })
    const prompts = [1, 4, 7, 10].map((count) => randomIds(count, 40, count))
    const alone: number[][] = []
    for (const p of prompts) alone.push((await collect(model.generate(p, { maxTokens: 6 }))).ids)
    const action = fc.record({ kind: fc.constantFrom('add', 'step', 'abort', 'leave'), which: fc.nat() })
    await fc.assert(
      fc.asyncProperty(fc.array(action, { maxLength: 25 }), async (actions) => {
        let running: {
          stream: AsyncGenerator<number, string, void>
          controller: AbortController
          prompt: number
          ids: number[]
        }[] = []
        for (const { kind, which } of actions) {
          const one = running[which % Math.max(1, running.length)]
          if (kind === 'add') {
            const controller = new AbortController()
            const stream = model.generate(prompts[which % 4]!, { maxTokens: 6, signal: controller.signal })
            running.push({ stream, controller, prompt: which % 4, ids: [] })
          } else if (one === undefined) continue
          else if (kind === 'step') {
            const { value, done } = await one.stream.next().catch((error) => {
              expect(error).toBeInstanceOf(KvPoolFullError)
              return { value: undefined, done: true }
            })
            if (!done) one.ids.push(value as number)
            else running = running.filter((r) => r !== one)
            expect(one.ids).toEqual(alone[one.prompt]!.slice(0, one.ids.length))
          } else {
            if (kind === 'leave') await one.stream.return('left')
            else {
              const next = one.stream.next().catch(() => undefined)
              one.controller.abort()
              await next
              await one.stream.return('left')
            }
            running = running.filter((r) => r !== one)
          }
          model.pool.checkIntegrity()
        }
        for (const { stream } of running) await stream.return('left')
        expectIdle(model)
      }),
      { numRuns: 30 },
    )
  })

  test('a disposed model says so; disposing twice is fine', async () => {
    const model = await load()
    const stream = model.generate(prompt)
    await stream.next()
    model.dispose()
    model.dispose()
    await expect(stream.next()).rejects.toThrow('disposed')
    await expect(model.logits(prompt)).rejects.toThrow('disposed')
    model.pool.checkIntegrity()
  })
})

test('seededUniform is uniform, exact in FP32 and fixed by its seed', () => {
  const draw = (seed: number): number[] => {
    const uniform = seededUniform(seed)
    return Array.from({ length: 10_000 }, uniform)
  }
  const values = draw(42)
  expect(values.every((v) => v >= 0 && v < 1 && Math.fround(v) === v)).toBe(true)
  expect(draw(42)).toEqual(values)
  const buckets = new Float64Array(10)
  for (const v of values) buckets[Math.floor(10 * v)]!++
  // χ² with 9 degrees of freedom: 27.9 is the 99.9th percentile.
  expect(buckets.reduce((sum, n) => sum + (n - 1000) ** 2 / 1000, 0)).toBeLessThan(27.9)
})
