import { defineOp } from '../program/op.js'
import { FLOAT, matrix, shaped, weightOf } from './checks.js'

/**
 * out[t, n] = xScale[t] · channelScale[n] · Σₖ x[t, k] · W[n, k] + bias[n] + residual[t, n].
 *
 * x [T, K] in FP32, BF16 or FP8 (then with xScale f32 [T, 1], see `quantizeFp8`); W [N, K] in whatever format was bound,
 * its value as the checkpoint defines it (an INT4 group's scale is applied exactly unless its tensor says
 * `lookupRounding`); the accumulator is FP32 on native backends; one rounding, to the type of out [T, N].
 */
export const linear = defineOp({
  kind: 'linear',
  roles: { x: 'input', xScale: 'input?', residual: 'input?', weight: 'weight', bias: 'weight?', out: 'output' },
  check(ctx) {
    const [rows, inFeatures] = matrix(ctx, 'x', ['f32', 'bf16', 'e4m3'])
    const [, outFeatures] = matrix(ctx, 'out', FLOAT)
    weightOf(ctx, 'weight', [outFeatures, inFeatures])
    if (ctx.has('bias')) weightOf(ctx, 'bias', [outFeatures])
    shaped(ctx, 'out', FLOAT, [rows, outFeatures])
    if (ctx.has('residual')) shaped(ctx, 'residual', FLOAT, [rows, outFeatures])
    if (ctx.has('xScale')) shaped(ctx, 'xScale', ['f32'], [rows, 1])
    if ((ctx.buffer('x').dtype === 'e4m3') !== ctx.has('xScale')) {
      ctx.fail('xScale goes with an x of type e4m3, and only with that')
    }
  },
  run(ctx) {
    const [x, weight, out] = [ctx.f32('x'), ctx.weight('weight'), ctx.f32('out')]
    const [outFeatures, inFeatures] = weight.shape as [number, number]
    const rows = ctx.shape('x')[0] as number
    const xScale = ctx.has('xScale') ? ctx.f32('xScale') : undefined
    const residual = ctx.has('residual') ? ctx.f32('residual') : undefined
    const bias = new Float64Array(outFeatures)
    if (ctx.has('bias')) ctx.weight('bias').decodeRow(0, bias)
    const w = new Float64Array(inFeatures)
    for (let n = 0; n < outFeatures; n++) {
      ctx.checkAborted()
      weight.decodeRow(n, w)
      for (let t = 0; t < rows; t++) {
        let sum = 0
        const at = t * inFeatures
        for (let k = 0; k < inFeatures; k++) sum += x[at + k]! * w[k]!
        const scaled = sum * (xScale ? xScale[t]! : 1) * weight.channelScale(n)
        out[t * outFeatures + n] = scaled + bias[n]! + (residual ? residual[t * outFeatures + n]! : 0)
      }
    }
  },
})
