import { calibration } from './calibration.js'
import { overrides } from './overrides.js'
import { smoothing } from './smoothing.js'
import { activations, kv, probabilities, queries } from './types-at-run-time.js'
import { weights } from './weights.js'

/** Every part that a recipe may have, in the order in which they act on a layer. */
export const parts = [smoothing, weights, overrides, activations, queries, probabilities, kv, calibration] as const
