import type { Backend } from '@fireq/kernels'
import type { QuantizeProgress } from './progress.js'

export interface QuantizeOptions {
  /** Runs the model on calibration tokens. Needed only by recipes that look at activations. */
  readonly backend?: Backend
  /** The token stream that calibration windows are drawn from. Needed by the same. */
  readonly calibrationIds?: Int32Array
  /** Replace a model that is in the way, and an unfinished one of another source or recipe. Default false. */
  readonly overwrite?: boolean
  /** Aborting rejects with its reason and leaves what is written to be resumed. */
  readonly signal?: AbortSignal
  readonly onProgress?: (progress: QuantizeProgress) => void
  /** Least time between two savings of the calibration's hidden states. Default 30 s. */
  readonly saveStatesEveryMs?: number
}
