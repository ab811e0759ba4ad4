import type { ScaleDType } from '../tensor.js'
import { absmax } from './absmax.js'

/** What a scale search must know of the format it searches for. */
export interface GroupFormat {
  readonly scaleDType: ScaleDType
  readonly lookupRounding: boolean
  /** The value the stored scale will have; a search that measures errors must use it, not the unrounded one. */
  roundScale(scale: number): number
}

/**
 * Chooses the scale σ of the group `weights[start … end)`: finite, not 0, of either sign. The caller rounds the result
 * to the format. One file per strategy, and one line in {@link SCALE_SEARCHES}.
 */
export type ScaleSearch = (weights: Float32Array, start: number, end: number, format: GroupFormat) => number

export type ScaleSearchName = 'absmax'

export const SCALE_SEARCHES: Readonly<Record<ScaleSearchName, ScaleSearch>> = { absmax }
