import { defineOp, type RunContext } from '../program/op.js'
import { FLOAT, matrix, shaped } from './checks.js'

/** out = silu(gate) · up with silu(g) = g / (1 + e^−g). gateUp [T, 2·I]: the gate's columns, then up's; out [T, I]. */
export const siluMul = defineOp({
  kind: 'siluMul',
  roles: { gateUp: 'input', out: 'output' },
  check(ctx) {
    const [rows, columns] = matrix(ctx, 'out', FLOAT)
    shaped(ctx, 'gateUp', FLOAT, [rows, 2 * columns])
  },
  run(ctx) {
    siluMulRows(ctx, ctx.f32('out'))
  },
})

export function siluMulRows(ctx: RunContext, out: Float32Array): void {
  const gateUp = ctx.f32('gateUp')
  const size = (ctx.shape('gateUp')[1] as number) / 2
  for (let i = 0; i < out.length; i++) {
    const at = Math.floor(i / size) * 2 * size + (i % size)
    const gate = gateUp[at]!
    out[i] = (gate / (1 + Math.exp(-gate))) * gateUp[at + size]!
  }
}

/** out = a + b, all [T, C]. */
export const add = defineOp({
  kind: 'add',
  roles: { a: 'input', b: 'input', out: 'output' },
  check(ctx) {
    const shape = matrix(ctx, 'a', FLOAT)
    shaped(ctx, 'b', FLOAT, shape)
    shaped(ctx, 'out', FLOAT, shape)
  },
  run(ctx) {
    const [a, b, out] = [ctx.f32('a'), ctx.f32('b'), ctx.f32('out')]
    for (let i = 0; i < out.length; i++) out[i] = a[i]! + b[i]!
  },
})

/** Copies x to an output in FP32, so that calibration can look at it: a tap is part of the program, not a hook. */
export const tap = defineOp({
  kind: 'tap',
  roles: { x: 'input', out: 'output' },
  check(ctx) {
    shaped(ctx, 'out', ['f32'], ctx.buffer('x').shape)
  },
  run(ctx) {
    ctx.f32('out').set(ctx.f32('x'))
  },
})

/** out[i] = x[rows[i]]: picks the tokens whose logits are wanted. x [T, C], rows i32 [R], out [R, C]. */
export const gatherRows = defineOp({
  kind: 'gatherRows',
  roles: { x: 'input', rows: 'input', out: 'output' },
  check(ctx) {
    const [, columns] = matrix(ctx, 'x', FLOAT)
    const [picked] = matrix(ctx, 'out', FLOAT)
    shaped(ctx, 'rows', ['i32'], [picked])
    shaped(ctx, 'out', FLOAT, [picked, columns])
  },
  checkFeeds(ctx) {
    const tokens = ctx.shape('x')[0] as number
    ctx.fed('rows')?.forEach((row, i) => {
      if (row < 0 || row >= tokens) ctx.fail(`output row ${i} is token ${row} of a step of ${tokens} tokens`)
    })
  },
  run(ctx) {
    const [x, out] = [ctx.f32('x'), ctx.f32('out')]
    const columns = ctx.shape('x')[1] as number
    ctx.i32('rows').forEach((row, i) => {
      out.set(x.subarray(row * columns, (row + 1) * columns), i * columns)
    })
  },
})
