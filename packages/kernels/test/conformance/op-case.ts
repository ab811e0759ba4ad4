import type { Tensor } from '@fireq/formats'
import {
  type BufferDType,
  type Dim,
  type Feeds,
  type KvCacheSpec,
  type OpKind,
  type Program,
  ProgramBuilder,
} from '../../src/index.js'
import type { Tolerance, TwoTolerances } from './compare.js'

/** One run of a small program that every backend must give the reference's results for. */
export interface OpCase {
  readonly name: string
  readonly program: Program
  readonly tensors: Readonly<Record<string, Tensor>>
  readonly feeds: Feeds
  readonly kv?: { readonly pages: number; readonly pageSize: number }
  /** By output. */
  readonly tolerances: Readonly<Record<string, Tolerance | TwoTolerances>>
}

type BufferList = Readonly<Record<string, readonly [BufferDType, ...Dim[]]>>

interface SingleOp {
  readonly inputs: BufferList
  readonly outputs: BufferList
  readonly attrs?: object
  readonly weights?: Readonly<Record<string, Tensor>>
  readonly constants?: Readonly<Record<string, Float32Array>>
  readonly kv?: KvCacheSpec
}

/** A program of one op whose operands are named like their roles. */
export function singleOp(
  kind: OpKind,
  { inputs, outputs, attrs = {}, weights = {}, constants = {}, kv }: SingleOp,
): Pick<OpCase, 'program' | 'tensors'> {
  const p = new ProgramBuilder(kind, kv)
  for (const [name, [dtype, ...shape]] of Object.entries(inputs)) p.input(name, dtype, shape)
  for (const [name, [dtype, ...shape]] of Object.entries(outputs)) p.output(name, dtype, shape)
  for (const [name, { shape }] of Object.entries(weights)) p.weight(name, shape)
  for (const [name, data] of Object.entries(constants)) p.constant(name, data)
  const names = [inputs, outputs, weights, constants].flatMap((table) => Object.keys(table))
  p.op(kind, Object.fromEntries(names.map((name) => [name, name])) as never, attrs as never)
  return { program: p.build(), tensors: weights }
}
