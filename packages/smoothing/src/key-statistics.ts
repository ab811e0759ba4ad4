import { checkGeometry, checkLength, notFinite } from './check.js'
import type { LayerGeometry } from './layer.js'

/**
 * Magnitudes of one layer's keys over the calibration tokens, channel d of key-value head g at g·D + d. RoPE rotates
 * the pair (i, i + D/2) of a head; pair i of head g is at g·D/2 + i.
 */
export interface KeyStatistics {
  /** [Hkv·D/2]: max over tokens of √(k_i² + k_{i+D/2}²), the same before and after RoPE. */
  readonly pairNorm: Float32Array
  /** [Hkv·D]: max over tokens of |k| after RoPE. */
  readonly postRopeAbsMax: Float32Array
}

/** Checks lengths, and that all values are finite and not negative. */
export function checkStatistics(stats: KeyStatistics, geometry: LayerGeometry): void {
  checkGeometry(geometry)
  const channels = geometry.numKeyValueHeads * geometry.headDim
  checkMagnitudes('pairNorm', stats.pairNorm, channels / 2)
  checkMagnitudes('postRopeAbsMax', stats.postRopeAbsMax, channels)
}

/**
 * The statistics that the keys have after their pairs were multiplied by `pairScale`, as pre-RoPE normalization and
 * tied-partner scaling do: no second calibration pass is needed between a fold and a transform that should see it.
 *
 * @param pairScale [Hkv·D/2], finite
 */
export function scaleStatistics(
  stats: KeyStatistics,
  geometry: LayerGeometry,
  pairScale: Float32Array | Float64Array,
): KeyStatistics {
  checkStatistics(stats, geometry)
  if (pairScale.length !== stats.pairNorm.length) {
    throw new RangeError(`Expected ${stats.pairNorm.length} values for pairScale but received ${pairScale.length}`)
  }
  pairScale.forEach((s, i) => {
    if (!Number.isFinite(s)) throw notFinite(`pairScale[${i}]`, s)
  })
  const pairs = pairOfChannel(geometry)
  return {
    pairNorm: stats.pairNorm.map((norm, i) => norm * Math.abs(pairScale[i])),
    postRopeAbsMax: stats.postRopeAbsMax.map((max, channel) => max * Math.abs(pairScale[pairs[channel]])),
  }
}

/**
 * The channels that post-RoPE scaling takes: per key-value head the topK largest by max|K| after RoPE (of equals the
 * lower one) and the partners that RoPE mixes them with. Returned as pairs, for both partners are always in.
 *
 * @param topK channels per head, 1…headDim
 * @returns pair indices g·D/2 + i
 */
export function selectOutlierPairs(stats: KeyStatistics, geometry: LayerGeometry, topK: number): ReadonlySet<number> {
  checkStatistics(stats, geometry)
  const { numKeyValueHeads, headDim } = geometry
  if (!Number.isSafeInteger(topK) || topK < 1 || topK > headDim) {
    throw new RangeError(`Expected an integer from 1 to headDim ${headDim} for topK but received ${topK}`)
  }
  const pairs = pairOfChannel(geometry)
  const selected = new Set<number>()
  for (let head = 0; head < numKeyValueHeads; head++) {
    Array.from({ length: headDim }, (_, d) => head * headDim + d)
      .sort((a, b) => stats.postRopeAbsMax[b] - stats.postRopeAbsMax[a])
      .slice(0, topK)
      .forEach((channel) => {
        selected.add(pairs[channel])
      })
  }
  return selected
}

/** The pair g·D/2 + i of every key channel g·D + d, where i = d mod D/2. */
export function pairOfChannel({ numKeyValueHeads, headDim }: LayerGeometry): Int32Array {
  const half = headDim / 2
  return Int32Array.from({ length: numKeyValueHeads * headDim }, (_, channel) => {
    return Math.floor(channel / headDim) * half + (channel % half)
  })
}

function checkMagnitudes(name: string, values: Float32Array, expected: number): void {
  checkLength(name, values, expected)
  values.forEach((value, i) => {
    if (!(value >= 0 && value < Infinity)) {
      throw new RangeError(`Expected a finite, non-negative value for ${name}[${i}] but received ${value}`)
    }
  })
}
