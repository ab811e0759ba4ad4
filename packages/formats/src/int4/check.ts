import type { Int4Tensor } from '../tensor.js'

/** [N, K] of positive integers, and a group size that is even (two codes share a byte) and divides K. */
export function checkGroups(shape: readonly [number, number], groupSize: number): void {
  const [N, K] = shape
  if (shape.length !== 2 || !Number.isSafeInteger(N) || !Number.isSafeInteger(K) || N < 1 || K < 1) {
    throw new RangeError(`Expected a shape [N, K] of positive integers but received [${shape}]`)
  }
  if (!Number.isSafeInteger(groupSize) || groupSize < 2 || groupSize % 2 !== 0 || K % groupSize !== 0) {
    throw new RangeError(`Expected an even group size that divides K=${K} but received ${groupSize}`)
  }
}

/** As many weights as the shape says, all finite. */
export function checkWeights(weights: Float32Array, [N, K]: readonly [number, number]): void {
  if (weights.length !== N * K) {
    throw new RangeError(`Expected ${N * K} weights for the shape [${N},${K}] but received ${weights.length}`)
  }
  for (let i = 0; i < weights.length; i++) {
    if (!Number.isFinite(weights[i])) {
      const place = `row ${Math.floor(i / K)}, column ${i % K}`
      throw new RangeError(`Expected finite weights but received ${weights[i]} at index ${i} (${place})`)
    }
  }
}

/** Checks that the parts of an INT4 tensor fit its shape. `name` says which tensor an error is about. */
export function checkInt4Tensor(t: Int4Tensor, name = 'INT4 tensor'): void {
  checkGroups(t.shape, t.groupSize)
  const [N, K] = t.shape
  const expect = (what: string, expected: number, received: number) => {
    if (received !== expected) {
      throw new RangeError(`Expected ${expected} ${what} for the ${name} of shape [${N},${K}] but received ${received}`)
    }
  }
  expect('bytes of codes', (N * K) / 2, t.codes.length)
  expect('group scales', N * (K / t.groupSize), t.groupScale.data.length)
  if (t.channelScale) expect('channel scales', N, t.channelScale.length)
}
