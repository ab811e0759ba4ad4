import type { Feeds, KvCache } from '../backend.js'
import { BackendError } from '../errors.js'
import type { Dim, SymbolicDim } from './buffer.js'
import { definitionOf } from './check.js'
import type { Program } from './program.js'

/** The symbolic dimensions of one step. */
export type Bindings = Readonly<Partial<Record<SymbolicDim, number>>>

export function resolveShape(shape: readonly Dim[], bindings: Bindings): number[] {
  return shape.map((dim) => (typeof dim === 'number' ? dim : (bindings[dim] ?? 0)))
}

export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, dim) => product * dim, 1)
}

/**
 * Finds the symbolic dimensions from the lengths of the fed arrays and checks every value that an op would trust (token
 * ids, slots, pages). Every backend calls this before a step; throws a BackendError that names the feed or the op.
 */
export function bindFeeds(program: Program, feeds: Feeds, kv: KvCache | undefined): Bindings {
  const bindings = bindDims(program, feeds)
  checkKv(program, kv)
  program.ops.forEach((op, index) => {
    const names = op.operands as Readonly<Record<string, string>>
    definitionOf(op).checkFeeds?.(
      {
        fed: (role) => feeds[names[role]!],
        shape: (role) => resolveShape(program.buffers[names[role]!]!.shape, bindings),
        weightShape: (role) => program.weights[names[role]!]!.shape,
        kv: () => kv!,
        fail: (message) => {
          throw new BackendError(`Program '${program.name}', op ${index} (${op.kind}): ${message}`)
        },
      },
      op.attrs as never,
    )
  })
  return bindings
}

function bindDims(program: Program, feeds: Feeds): Bindings {
  const bindings: Partial<Record<SymbolicDim, number>> = {}
  const fail = (message: string): never => {
    throw new BackendError(`Program '${program.name}': ${message}`)
  }
  for (const name of Object.keys(feeds)) {
    if (program.buffers[name]?.role !== 'input') fail(`'${name}' is fed but is not an input`)
  }
  for (const [name, spec] of Object.entries(program.buffers)) {
    if (spec.role !== 'input') continue
    const feed = feeds[name]
    const type = spec.dtype === 'i32' ? Int32Array : Float32Array
    if (!(feed instanceof type)) {
      fail(
        `expected a ${type.name} for input '${name}' but received ${feed === undefined ? 'nothing' : feed.constructor.name}`,
      )
    }
    bindLength(name, spec.shape, feed!.length, bindings, fail)
  }
  return bindings
}

function bindLength(
  name: string,
  shape: readonly Dim[],
  length: number,
  bindings: Partial<Record<SymbolicDim, number>>,
  fail: (message: string) => never,
): void {
  let known = 1
  let unknown: SymbolicDim | undefined
  for (const dim of shape) {
    if (typeof dim === 'string' && bindings[dim] === undefined && unknown === undefined) unknown = dim
    else known *= typeof dim === 'number' ? dim : (bindings[dim] ?? 0)
  }
  if (unknown !== undefined) {
    bindings[unknown] = known === 0 ? 0 : length / known
    known *= bindings[unknown]!
  }
  if (known !== length || (unknown !== undefined && !Number.isInteger(bindings[unknown]))) {
    const sizes = shape.map((dim) => (typeof dim === 'string' ? `${dim}=${bindings[dim]}` : dim))
    fail(`input '${name}' of shape [${sizes.join(', ')}] can't have ${length} elements`)
  }
}

function checkKv(program: Program, kv: KvCache | undefined): void {
  const { kv: spec, name } = program
  if (spec === undefined) return
  if (kv === undefined) throw new BackendError(`Program '${name}' needs a KV cache, but none was given`)
  const difference = (['numLayers', 'numKeyValueHeads', 'headDim'] as const).find((key) => spec[key] !== kv.spec[key])
  if (difference !== undefined) {
    throw new BackendError(
      `Program '${name}' needs a KV cache with ${difference} ${spec[difference]}, but it has ${kv.spec[difference]}`,
    )
  }
  if (JSON.stringify(spec.format) !== JSON.stringify(kv.spec.format)) {
    throw new BackendError(
      `Program '${name}' needs a KV cache of format ${JSON.stringify(spec.format)}, but it is ${JSON.stringify(kv.spec.format)}`,
    )
  }
}
