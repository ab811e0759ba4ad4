import type { BufferDType, Dim } from './buffer.js'
import type { KvCacheSpec } from './kv.js'

/** What an operand of an op is; a question mark lets it be left out. */
export type Role = 'input' | 'input?' | 'output' | 'output?' | 'weight' | 'weight?' | 'constant' | 'constant?'
export type Roles = Readonly<Record<string, Role>>
export type Attrs = Readonly<Record<string, number | string | boolean>>

type Optional<R extends Roles> = { [K in keyof R]: R[K] extends `${string}?` ? K : never }[keyof R]
type Operands<R extends Roles> = { readonly [K in Exclude<keyof R, Optional<R>>]: string } & {
  readonly [K in Optional<R>]?: string
}

/** One op of a program: which buffer, weight or constant each operand is, and the op's attributes. */
export interface OpNode<Kind extends string = string, R extends Roles = Roles, A extends Attrs = Attrs> {
  readonly kind: Kind
  readonly operands: Operands<R>
  readonly attrs: A
}

/** A buffer as an op's check sees it. */
export interface BufferOperand {
  readonly name: string
  readonly dtype: BufferDType
  readonly shape: readonly Dim[]
}

/** What an op's `check` may ask for, and how it complains. */
export interface CheckContext {
  has(role: string): boolean
  buffer(role: string): BufferOperand
  weightShape(role: string): readonly number[]
  constantLength(role: string): number
  kv(): KvCacheSpec
  /** Throws a ProgramError that names the op and its place in the program. */
  fail(message: string): never
}

/** What an op's `checkFeeds` may ask for: concrete values of operands that the caller feeds. */
export interface FeedContext {
  /** The fed values, or undefined if another op computes this operand. */
  fed(role: string): Int32Array | Float32Array | undefined
  /** Concrete shape of a buffer operand in this step. */
  shape(role: string): readonly number[]
  weightShape(role: string): readonly number[]
  /** Size of the bound cache. */
  kv(): { readonly pages: number; readonly pageSize: number }
  fail(message: string): never
}

/** A weight as an op's reference implementation reads it: row by row, in exact FP64 values. */
export interface ReferenceWeight {
  readonly shape: readonly number[]
  /** Writes row n (the whole vector, for a weight of rank 1) without its channel scale. */
  decodeRow(n: number, out: Float64Array): void
  channelScale(n: number): number
}

/** A cache as an op's reference implementation uses it: a vector of headDim values per layer, slot and head. */
export interface ReferenceKv {
  readonly spec: KvCacheSpec
  readonly pageSize: number
  write(side: 'key' | 'value', layer: number, slot: number, head: number, x: Float32Array): void
  read(side: 'key' | 'value', layer: number, slot: number, head: number, out: Float32Array): void
}

/**
 * What an op's reference implementation works on. A floating-point buffer is a Float32Array whatever its type: it holds
 * values of that type, and the backend rounds outputs to theirs after `run` returns.
 */
export interface RunContext {
  has(role: string): boolean
  f32(role: string): Float32Array
  i32(role: string): Int32Array
  shape(role: string): readonly number[]
  weight(role: string): ReferenceWeight
  constant(role: string): Float32Array
  kv(): ReferenceKv
  /** Throws if the run was aborted; long loops call it once a row. */
  checkAborted(): void
}

/**
 * An op's whole definition: its signature, its rules, and in `run` its numerics. Every other backend is tested against
 * `run`, so it is written to be read, and computes in FP64 what the others compute in FP32: the rounding points that
 * count are the output buffers' types and those that a docstring names.
 */
export interface OpDefinition<Kind extends string, R extends Roles, A extends Attrs> {
  readonly kind: Kind
  readonly roles: R
  /** Shape and type rules. */
  check(ctx: CheckContext, attrs: A): void
  /** Rules on fed values: ids in range, lengths that fit. Run before every step by every backend. */
  checkFeeds?(ctx: FeedContext, attrs: A): void
  run(ctx: RunContext, attrs: A): void
}

/** Declares an op; only there to infer its types. */
export function defineOp<Kind extends string, const R extends Roles, A extends Attrs>(
  definition: OpDefinition<Kind, R, A>,
): OpDefinition<Kind, R, A> {
  return definition
}

/** The node type that a definition describes. */
export type NodeOf<D> = D extends OpDefinition<infer Kind, infer R, infer A> ? OpNode<Kind, R, A> : never
