import { roundBf16Array } from '@fireq/formats'
import { type CheckContext, defineOp } from '../program/op.js'
import { FLOAT, matrix, shaped, weightOf } from './checks.js'
import { siluMulRows } from './elementwise.js'
import { quantizeGroups } from './quantize-fp8.js'
import { normalizeRows } from './rms-norm.js'

// Ops that only rewrites make (see program/rewrites.ts). Each equals its two parts to the bit: `intermediate` is the
// type of the buffer that stood between them, and values are still rounded to it on the way.

type Intermediate = 'f32' | 'bf16'

/** `rmsNorm`, then `quantizeFp8` with one scale per token. */
export const rmsNormQuantize = defineOp({
  kind: 'rmsNormQuantize',
  roles: { x: 'input', weight: 'weight', out: 'output', scale: 'output' },
  check(ctx, { intermediate }: { readonly eps: number; readonly intermediate: Intermediate }) {
    const [rows, hiddenSize] = matrix(ctx, 'x', FLOAT)
    weightOf(ctx, 'weight', [hiddenSize])
    checkQuantized(ctx, intermediate, [rows, hiddenSize])
  },
  run(ctx, { eps, intermediate }) {
    const normed = new Float32Array(ctx.f32('x').length)
    normalizeRows(ctx, eps, normed)
    if (intermediate === 'bf16') roundBf16Array(normed)
    quantizeGroups(normed, ctx.shape('x')[1] as number, ctx.f32('out'), ctx.f32('scale'))
  },
})

/** `siluMul`, then `quantizeFp8` with one scale per token. */
export const siluMulQuantize = defineOp({
  kind: 'siluMulQuantize',
  roles: { gateUp: 'input', out: 'output', scale: 'output' },
  check(ctx, { intermediate }: { readonly intermediate: Intermediate }) {
    const [rows, columns] = matrix(ctx, 'gateUp', FLOAT)
    checkQuantized(ctx, intermediate, [rows, columns / 2])
  },
  run(ctx, { intermediate }) {
    const out = ctx.f32('out')
    const product = new Float32Array(out.length)
    siluMulRows(ctx, product)
    if (intermediate === 'bf16') roundBf16Array(product)
    quantizeGroups(product, ctx.shape('out')[1] as number, out, ctx.f32('scale'))
  },
})

function checkQuantized(ctx: CheckContext, intermediate: Intermediate, shape: ReturnType<typeof matrix>): void {
  if (intermediate !== 'f32' && intermediate !== 'bf16') {
    ctx.fail(`expected intermediate to be f32 or bf16, but received ${intermediate}`)
  }
  shaped(ctx, 'out', ['e4m3'], shape)
  shaped(ctx, 'scale', ['f32'], [shape[0], 1])
}
