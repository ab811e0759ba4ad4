import { defineOp } from '../program/op.js'
import { matrix, shaped } from './checks.js'

/**
 * Draws one token a row. Temperature 0 takes the largest logit (the lowest id of equals). Otherwise: order by logit,
 * largest first, lower id first of equals; keep the topK first (0 keeps all); p = softmax(logits / temperature) over
 * them; keep the shortest prefix whose mass reaches topP (1 keeps all); take the first token at which the running mass,
 * over the kept mass, passes `uniform` in [0, 1).
 *
 * logits f32 [R, vocabSize]; temperature, topP, uniform f32 [R]; topK i32 [R]; token i32 [R].
 */
export const sample = defineOp({
  kind: 'sample',
  roles: {
    logits: 'input',
    temperature: 'input',
    topK: 'input',
    topP: 'input',
    uniform: 'input',
    token: 'output',
  },
  check(ctx) {
    const [rows] = matrix(ctx, 'logits', ['f32'])
    for (const role of ['temperature', 'topP', 'uniform']) shaped(ctx, role, ['f32'], [rows])
    shaped(ctx, 'topK', ['i32'], [rows])
    shaped(ctx, 'token', ['i32'], [rows])
  },
  checkFeeds(ctx) {
    const rule = (role: string, ok: (v: number) => boolean, expected: string): void => {
      ctx.fed(role)?.forEach((v, i) => {
        if (!ok(v)) ctx.fail(`expected ${role} of row ${i} to be ${expected}, but received ${v}`)
      })
    }
    rule('temperature', (v) => v >= 0 && v < Infinity, 'finite and ≥ 0')
    rule('topK', (v) => v >= 0, '≥ 0 (0 keeps all)')
    rule('topP', (v) => v > 0 && v <= 1, 'in (0, 1]')
    rule('uniform', (v) => v >= 0 && v < 1, 'in [0, 1)')
  },
  run(ctx) {
    const vocabSize = ctx.shape('logits')[1] as number
    const [logits, token] = [ctx.f32('logits'), ctx.i32('token')]
    for (let r = 0; r < token.length; r++) {
      token[r] = draw(logits.subarray(r * vocabSize, (r + 1) * vocabSize), {
        temperature: ctx.f32('temperature')[r]!,
        topK: ctx.i32('topK')[r]!,
        topP: ctx.f32('topP')[r]!,
        uniform: ctx.f32('uniform')[r]!,
      })
    }
  },
})

interface Draw {
  readonly temperature: number
  readonly topK: number
  readonly topP: number
  readonly uniform: number
}

function draw(logits: Float32Array, { temperature, topK, topP, uniform }: Draw): number {
  if (temperature === 0) return logits.reduce((best, v, id) => (v > logits[best]! ? id : best), 0)
  const order = Uint32Array.from(logits.keys()).sort((a, b) => logits[b]! - logits[a]! || a - b)
  const kept = topK === 0 ? order : order.subarray(0, topK)
  const max = logits[kept[0]!]!
  const weights = Float64Array.from(kept, (id) => Math.exp((logits[id]! - max) / temperature))
  const total = weights.reduce((sum, w) => sum + w, 0)
  let [count, mass] = [0, 0]
  while (count < kept.length && (count === 0 || mass < topP * total)) mass += weights[count++]!
  let running = 0
  for (let i = 0; i < count; i++) {
    running += weights[i]!
    if (running > uniform * mass) return kept[i]!
  }
  return kept[count - 1]!
}
