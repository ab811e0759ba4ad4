import { BackendError } from '../errors.js'
import type { CudaBuffer } from './resources.js'

/** "<what>: expected <wanted> but received <received>", unless it holds. */
export function expect(holds: boolean, what: string, wanted: string, received: string | number): void {
  if (!holds) throw new BackendError(`${what}: expected ${wanted} but received ${received}`)
}

/** A whole number from `least` to `most`. */
export function expectWhole(what: string, name: string, value: number, least: number, most: number): void {
  const holds = Number.isInteger(value) && value >= least && value <= most
  expect(holds, what, `${name} to be a whole number from ${least} to ${most}`, value)
}

/** Buffers by name, each with the bytes that it must have at least. */
export function expectBytes(what: string, buffers: Readonly<Record<string, readonly [CudaBuffer, number]>>): void {
  for (const [name, [buffer, bytes]] of Object.entries(buffers)) {
    expect(buffer.bytes >= bytes, what, `${name} of at least ${bytes} bytes`, buffer.bytes)
  }
}

/** Whole groups of query heads, one group a key-value head. */
export function expectGroups(what: string, numAttentionHeads: number, numKeyValueHeads: number): void {
  expectWhole(what, 'numAttentionHeads', numAttentionHeads, 1, 2 ** 20)
  const wanted = `attention heads in groups, one of ${numKeyValueHeads} key-value heads each`
  expect(numAttentionHeads % numKeyValueHeads === 0, what, wanted, numAttentionHeads)
}
