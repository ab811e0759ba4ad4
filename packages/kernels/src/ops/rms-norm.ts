import { defineOp, type RunContext } from '../program/op.js'
import { FLOAT, matrix, shaped, weightOf } from './checks.js'

/** out = x / √(mean(x²) + eps) · weight, row by row. x and out [T, hiddenSize], weight [hiddenSize]. */
export const rmsNorm = defineOp({
  kind: 'rmsNorm',
  roles: { x: 'input', weight: 'weight', out: 'output' },
  check(ctx, _attrs: { readonly eps: number }) {
    const [rows, hiddenSize] = matrix(ctx, 'x', FLOAT)
    weightOf(ctx, 'weight', [hiddenSize])
    shaped(ctx, 'out', FLOAT, [rows, hiddenSize])
  },
  run(ctx, { eps }) {
    normalizeRows(ctx, eps, ctx.f32('out'))
  },
})

export function normalizeRows(ctx: RunContext, eps: number, out: Float32Array): void {
  const x = ctx.f32('x')
  const [rows, hiddenSize] = ctx.shape('x') as [number, number]
  const weight = new Float64Array(hiddenSize)
  ctx.weight('weight').decodeRow(0, weight)
  for (let t = 0; t < rows; t++) {
    const row = x.subarray(t * hiddenSize, (t + 1) * hiddenSize)
    let sum = 0
    for (const v of row) sum += v * v
    const factor = 1 / Math.sqrt(sum / hiddenSize + eps)
    for (let i = 0; i < hiddenSize; i++) out[t * hiddenSize + i] = row[i]! * factor * weight[i]!
  }
}
