import type { BufferDType, Dim } from '../program/buffer.js'
import type { BufferOperand, CheckContext } from '../program/op.js'

const show = (shape: readonly Dim[]): string => `[${shape.join(', ')}]`

/** Requires a buffer operand of one of `dtypes` and of rank 2, and returns [rows, columns]. */
export function matrix(ctx: CheckContext, role: string, dtypes: readonly BufferDType[]): [Dim, number] {
  const buffer = typed(ctx, role, dtypes)
  const [rows, columns] = buffer.shape
  if (buffer.shape.length !== 2 || typeof columns !== 'number') {
    ctx.fail(
      `expected ${role} of shape [rows, columns] with fixed columns, but '${buffer.name}' is ${show(buffer.shape)}`,
    )
  }
  return [rows as Dim, columns as number]
}

export function typed(ctx: CheckContext, role: string, dtypes: readonly BufferDType[]): BufferOperand {
  const buffer = ctx.buffer(role)
  if (!dtypes.includes(buffer.dtype)) {
    ctx.fail(`expected ${role} of type ${dtypes.join(' or ')}, but '${buffer.name}' is ${buffer.dtype}`)
  }
  return buffer
}

/** Requires a buffer operand of exactly this shape. */
export function shaped(ctx: CheckContext, role: string, dtypes: readonly BufferDType[], shape: readonly Dim[]): void {
  const buffer = typed(ctx, role, dtypes)
  if (buffer.shape.length !== shape.length || shape.some((dim, i) => dim !== buffer.shape[i])) {
    ctx.fail(`expected ${role} of shape ${show(shape)}, but '${buffer.name}' is ${show(buffer.shape)}`)
  }
}

export function weightOf(ctx: CheckContext, role: string, shape: readonly number[]): void {
  const actual = ctx.weightShape(role)
  if (actual.length !== shape.length || shape.some((dim, i) => dim !== actual[i])) {
    ctx.fail(`expected weight ${role} of shape ${show(shape)}, but it is ${show(actual)}`)
  }
}

/** Requires an attribute to be a whole number ≥ `min`. */
export function whole(ctx: CheckContext, name: string, value: number, min = 1): void {
  if (!Number.isInteger(value) || value < min)
    ctx.fail(`expected ${name} to be a whole number ≥ ${min}, but received ${value}`)
}

export const FLOAT: readonly BufferDType[] = ['f32', 'bf16']
