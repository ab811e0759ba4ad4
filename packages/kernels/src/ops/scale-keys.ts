import { defineOp } from '../program/op.js'
import { FLOAT, matrix, shaped } from './checks.js'

/**
 * FireQ's post-RoPE scaling: keys times keyScale, queries divided by it, so that every score stays as it was while the
 * keys' outlier channels shrink before they are stored in INT4. k [T, Hkv·D], q [T, H·D] (the query heads of one
 * key-value head are adjacent), keyScale [Hkv·D], not zero.
 */
export const scaleKeys = defineOp({
  kind: 'scaleKeys',
  roles: { q: 'input', k: 'input', keyScale: 'constant', qOut: 'output', kOut: 'output' },
  check(ctx, { headDim }: { readonly headDim: number }) {
    const [rows, qSize] = matrix(ctx, 'q', FLOAT)
    const [, kSize] = matrix(ctx, 'k', FLOAT)
    shaped(ctx, 'k', FLOAT, [rows, kSize])
    shaped(ctx, 'qOut', FLOAT, [rows, qSize])
    shaped(ctx, 'kOut', FLOAT, [rows, kSize])
    if (kSize % headDim !== 0 || qSize % kSize !== 0) {
      ctx.fail(`q of ${qSize} and k of ${kSize} columns aren't whole groups of heads of ${headDim}`)
    }
    if (ctx.constantLength('keyScale') !== kSize) {
      ctx.fail(`expected ${kSize} key scales, but received ${ctx.constantLength('keyScale')}`)
    }
  },
  run(ctx, { headDim }) {
    const [q, k, scale] = [ctx.f32('q'), ctx.f32('k'), ctx.constant('keyScale')]
    const [qOut, kOut] = [ctx.f32('qOut'), ctx.f32('kOut')]
    const [qSize, kSize] = [ctx.shape('q')[1] as number, ctx.shape('k')[1] as number]
    const headsPerGroup = qSize / kSize
    for (let i = 0; i < k.length; i++) kOut[i] = k[i]! * scale[i % kSize]!
    for (let i = 0; i < q.length; i++) {
      const column = i % qSize
      const keyHead = Math.floor(column / headDim / headsPerGroup)
      qOut[i] = q[i]! / scale[keyHead * headDim + (column % headDim)]!
    }
  },
})
