import { defineOp } from '../program/op.js'
import { FLOAT, matrix, shaped, whole } from './checks.js'

export interface RopeAttrs {
  readonly [name: string]: number
  readonly numAttentionHeads: number
  readonly numKeyValueHeads: number
  readonly headDim: number
}

/**
 * Splits the fused projection into q, k and v and rotates q and k: the pair (i, i + headDim/2) of a head at position p
 * by the angle p · inverseFrequencies[i], the angle rounded to FP32 (Hugging Face's half-split order; Su et al. 2021).
 * qkv [T, (H + 2·Hkv)·D]: query heads, key heads, value heads; positions i32 [T]; inverseFrequencies [D/2].
 */
export const rope = defineOp({
  kind: 'rope',
  roles: {
    qkv: 'input',
    positions: 'input',
    inverseFrequencies: 'constant',
    q: 'output',
    k: 'output',
    v: 'output',
  },
  check(ctx, { numAttentionHeads, numKeyValueHeads, headDim }: RopeAttrs) {
    whole(ctx, 'numAttentionHeads', numAttentionHeads)
    whole(ctx, 'numKeyValueHeads', numKeyValueHeads)
    whole(ctx, 'headDim', headDim)
    if (numAttentionHeads % numKeyValueHeads !== 0) {
      ctx.fail(`${numKeyValueHeads} key-value heads don't divide ${numAttentionHeads} attention heads`)
    }
    if (headDim % 2 !== 0) ctx.fail(`expected an even headDim, but received ${headDim}`)
    const [rows] = matrix(ctx, 'qkv', FLOAT)
    shaped(ctx, 'qkv', FLOAT, [rows, (numAttentionHeads + 2 * numKeyValueHeads) * headDim])
    shaped(ctx, 'positions', ['i32'], [rows])
    shaped(ctx, 'q', FLOAT, [rows, numAttentionHeads * headDim])
    shaped(ctx, 'k', FLOAT, [rows, numKeyValueHeads * headDim])
    shaped(ctx, 'v', FLOAT, [rows, numKeyValueHeads * headDim])
    if (ctx.constantLength('inverseFrequencies') !== headDim / 2) {
      ctx.fail(`expected ${headDim / 2} inverse frequencies, but received ${ctx.constantLength('inverseFrequencies')}`)
    }
  },
  checkFeeds(ctx) {
    ctx.fed('positions')?.forEach((p, t) => {
      if (p < 0) ctx.fail(`token ${t} has position ${p}`)
    })
  },
  run(ctx, { numAttentionHeads, numKeyValueHeads, headDim }) {
    const [qkv, positions] = [ctx.f32('qkv'), ctx.i32('positions')]
    const [qSize, kvSize] = [numAttentionHeads * headDim, numKeyValueHeads * headDim]
    const stride = qSize + 2 * kvSize
    positions.forEach((position, t) => {
      const row = qkv.subarray(t * stride, (t + 1) * stride)
      const angles = ctx.constant('inverseFrequencies').map((f) => Math.fround(position * f))
      rotateHeads(row.subarray(0, qSize), headDim, angles, ctx.f32('q').subarray(t * qSize))
      rotateHeads(row.subarray(qSize, qSize + kvSize), headDim, angles, ctx.f32('k').subarray(t * kvSize))
      ctx.f32('v').set(row.subarray(qSize + kvSize), t * kvSize)
    })
  },
})

function rotateHeads(row: Float32Array, headDim: number, angles: Float32Array, out: Float32Array): void {
  const half = headDim / 2
  for (let head = 0; head < row.length; head += headDim) {
    for (let i = 0; i < half; i++) {
      const [a, b] = [row[head + i]!, row[head + i + half]!]
      const [cos, sin] = [Math.cos(angles[i]!), Math.sin(angles[i]!)]
      out[head + i] = a * cos - b * sin
      out[head + i + half] = b * cos + a * sin
    }
  }
}
