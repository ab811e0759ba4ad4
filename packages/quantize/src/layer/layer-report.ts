import type { FoldingPlan } from '@fireq/smoothing'
import type { WeightError } from './weight-error.js'

/** What is known of one layer when it is written; kept in `fireq.json` under `provenance.layers`. */
export interface LayerReport {
  /** By tensor, against the weights that smoothing left. */
  readonly weightErrors: Readonly<Record<string, WeightError>>
  readonly folds: FoldingPlan
}

/** What a shard's journal entry keeps for `fireq.json`. */
export interface LayerNote extends LayerReport {
  readonly keyScale?: readonly number[]
}

/** The part of a note that people read. */
export function reportOf({ weightErrors, folds }: LayerReport): LayerReport {
  return { weightErrors, folds }
}
