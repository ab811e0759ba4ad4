import type { Recipe } from '@fireq/quantize'
import type { FoldingPlan } from '@fireq/smoothing'
import type { ChannelMaxima } from '../evaluation/observe.js'
import type { Score } from '../evaluation/score.js'
import type { SameFunction } from '../outliers/verify.js'

/** What was measured of one row on one model. */
export interface RowResult {
  readonly id: string
  readonly label: string
  readonly adds: string
  readonly recipe?: Recipe
  /** Q and P in BF16, and in FP8. */
  readonly off: Score
  readonly on: Score
  /** Of the decoder layers' linears, group scales included; none where they aren't quantized. */
  readonly bitsPerWeight?: number
  /** Of keys and values, scales included. */
  readonly kvBits: number
  /** Relative, by layer, against the weights that smoothing left. */
  readonly weightErrors?: readonly number[]
  /** What smoothing folded where, by layer. */
  readonly folds?: readonly FoldingPlan[]
  /** Relative, of the residual stream after each layer. */
  readonly hiddenErrors?: readonly number[]
  /** Of the running model's activations, layer by layer. */
  readonly maxima: readonly ChannelMaxima[]
}

/** All rows on one model. */
export interface SubjectResult {
  readonly id: string
  readonly title: string
  /** That outliers were injected, and that they changed nothing. */
  readonly outliers?: SameFunction & { readonly settings: unknown }
  readonly rows: readonly RowResult[]
}
