import type { LayerGeometry, LayerWeights, Matrix } from './layer.js'

/** Checks that the geometry is whole and that every tensor of the layer has its shape. Values aren't looked at here. */
export function checkLayer(layer: LayerWeights, geometry: LayerGeometry): void {
  checkGeometry(geometry)
  const { hiddenSize, numAttentionHeads, numKeyValueHeads, headDim, intermediateSize } = geometry
  const [queries, keys] = [numAttentionHeads * headDim, numKeyValueHeads * headDim]
  checkLength('inputNorm', layer.inputNorm, hiddenSize)
  checkLength('postAttentionNorm', layer.postAttentionNorm, hiddenSize)
  checkProjection(layer, 'q', queries, hiddenSize)
  checkProjection(layer, 'k', keys, hiddenSize)
  checkProjection(layer, 'v', keys, hiddenSize)
  checkProjection(layer, 'o', hiddenSize, queries)
  checkProjection(layer, 'gate', intermediateSize, hiddenSize)
  checkProjection(layer, 'up', intermediateSize, hiddenSize)
  checkProjection(layer, 'down', hiddenSize, intermediateSize)
}

/** Whole positive sizes, heads that divide into groups, and an even headDim (RoPE rotates pairs). */
export function checkGeometry(geometry: LayerGeometry): void {
  for (const name of ['hiddenSize', 'numAttentionHeads', 'numKeyValueHeads', 'headDim', 'intermediateSize'] as const) {
    const size = geometry[name]
    if (!Number.isSafeInteger(size) || size < 1) {
      throw new RangeError(`Expected a positive integer for ${name} but received ${size}`)
    }
  }
  const { numAttentionHeads, numKeyValueHeads, headDim } = geometry
  if (headDim % 2 !== 0) throw new RangeError(`Expected an even headDim but received ${headDim}`)
  if (numAttentionHeads % numKeyValueHeads !== 0) {
    throw new RangeError(
      `Expected numKeyValueHeads to divide the ${numAttentionHeads} attention heads but received ${numKeyValueHeads}`,
    )
  }
}

export function checkLength(name: string, values: Float32Array, expected: number): void {
  if (!(values instanceof Float32Array)) {
    throw new TypeError(`Expected a Float32Array for ${name} but received ${describe(values)}`)
  }
  if (values.length !== expected) {
    throw new RangeError(`Expected ${expected} values for ${name} but received ${values.length}`)
  }
}

/** A factor or target: finite, and positive or, where a sign does no harm, at least not zero. */
export function checkFactor(name: string, value: number, sign: 'positive' | 'nonzero' = 'positive'): void {
  if (!Number.isFinite(value) || value === 0 || (sign === 'positive' && value < 0)) {
    throw new RangeError(`Expected a finite ${sign} number for ${name} but received ${value}`)
  }
}

/** The error for a value that isn't finite, before or after a fold. */
export function notFinite(place: string, value: number): RangeError {
  return new RangeError(`Expected a finite value for ${place} but received ${value}`)
}

type Projection = 'q' | 'k' | 'v' | 'o' | 'gate' | 'up' | 'down'

function checkProjection(layer: LayerWeights, name: Projection, rows: number, columns: number): void {
  const matrix: Matrix | undefined = layer[name]
  if (!matrix) throw new TypeError(`Expected a matrix for ${name} but received ${describe(matrix)}`)
  if (matrix.rows !== rows || matrix.columns !== columns) {
    throw new RangeError(
      `Expected the shape [${rows}, ${columns}] for ${name} but received [${matrix.rows}, ${matrix.columns}]`,
    )
  }
  checkLength(name, matrix.data, rows * columns)
  const bias = layer[`${name}Bias`]
  if (bias !== undefined) checkLength(`${name}Bias`, bias, rows)
}

function describe(value: unknown): string {
  return value === null || typeof value !== 'object' ? String(value) : value.constructor.name
}
