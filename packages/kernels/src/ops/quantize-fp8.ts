import { roundE4m3 } from '@fireq/formats'
import { defineOp } from '../program/op.js'
import { FLOAT, matrix, shaped, whole } from './checks.js'

/**
 * FP8 with one scale per row and group of columns: s = max|x| / 448, out = E4M3(x / s), both steps in FP32.
 * A group of zeros gets s = 1; s is at least 2⁻¹²⁶. A NaN stays NaN; an infinity makes its whole group NaN once it is
 * scaled back. x and out [T, C], scale f32 [T, C / groupSize]; groupSize is C for activations (a scale a token) and
 * headDim for queries (a scale a token and head).
 */
export const quantizeFp8 = defineOp({
  kind: 'quantizeFp8',
  roles: { x: 'input', out: 'output', scale: 'output' },
  check(ctx, { groupSize }: { readonly groupSize: number }) {
    const [rows, columns] = matrix(ctx, 'x', FLOAT)
    whole(ctx, 'groupSize', groupSize)
    if (columns % groupSize !== 0) ctx.fail(`groupSize ${groupSize} doesn't divide the ${columns} columns of x`)
    shaped(ctx, 'out', ['e4m3'], [rows, columns])
    shaped(ctx, 'scale', ['f32'], [rows, columns / groupSize])
  },
  run(ctx, { groupSize }) {
    quantizeGroups(ctx.f32('x'), groupSize, ctx.f32('out'), ctx.f32('scale'))
  },
})

export const FP8_MAX = 448
const SMALLEST_NORMAL = 2 ** -126

/** Quantizes consecutive groups of `x`; see {@link quantizeFp8}. */
export function quantizeGroups(x: Float32Array, groupSize: number, out: Float32Array, scale: Float32Array): void {
  for (let g = 0; g < scale.length; g++) {
    const group = x.subarray(g * groupSize, (g + 1) * groupSize)
    let max = 0
    for (const v of group) if (Math.abs(v) > max) max = Math.abs(v)
    const s = max === 0 ? 1 : Math.max(Math.fround(max / FP8_MAX), SMALLEST_NORMAL)
    scale[g] = s
    for (let i = 0; i < groupSize; i++) out[g * groupSize + i] = roundE4m3(Math.fround(group[i]! / s))
  }
}
