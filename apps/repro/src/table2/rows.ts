import { parseRecipe, type Recipe, type RecipeInput } from '@fireq/quantize'
import type { CalibrationSize } from '../subjects/tokens.js'

/** A row of the table: a recipe, and what it has that the row above hasn't. */
export interface Table2Row {
  readonly id: string
  readonly label: string
  readonly adds: string
  /** None for the model as it is. */
  readonly recipe?: Recipe
}

/** Types of weights, activations, keys and values; Q and P are set when a row is run, in both ways. */
const types = {
  weights: { groupSize: 128, scale: 'e4m3', tensorScale: 'off' },
  activations: 'e4m3',
  kv: { dtype: 'int4', symmetric: true, scale: 'e4m3' },
} satisfies RecipeInput

const scaledWeights = { ...types.weights, tensorScale: 'auto' } satisfies RecipeInput['weights']

/**
 * FireQ's constants for gate, up and down are the authors' for Llama-3-8B. They leave q, k, v and o unscaled; with o's
 * ties under grouped-query attention put right, this scales them too, by the same constants.
 */
const channelWise = {
  qkv: { type: 2, constant: 0.0096 },
  o: { type: 2, constant: 0.015 },
  gateUp: { type: 2, constant: 0.0096 },
  down: { type: 2, constant: 0.015 },
} as const

/** The authors' values for Llama-3-8B; the smaller ones are their defaults elsewhere. */
const preRope = { alpha: 8 }
const postRope = { beta: 8, topK: 8 }
const valueMultiplier = 0.9

interface Step extends Omit<Table2Row, 'recipe'> {
  readonly input?: RecipeInput
}

/** The paper's table 2 with its ablation: every row adds one thing to the row above, except where it says otherwise. */
const steps: readonly Step[] = [
  { id: 'bf16', label: 'BF16', adds: 'The model as it is; keys and values in BF16.' },
  {
    id: 'rtn',
    label: 'RTN',
    adds: 'Round to nearest: weights INT4 in groups of 128 with E4M3 scales, activations FP8 per token, keys and values INT4, symmetric, with an E4M3 scale per token and head.',
    input: types,
  },
  {
    id: 'tensor-scale',
    label: '+ tensor scale',
    adds: 'A power of two on every weight matrix, to keep its E4M3 group scales out of underflow.',
    input: { ...types, weights: scaledWeights },
  },
  {
    id: 'cas',
    label: '+ CAS',
    adds: 'Channel-wise scaling by the mean magnitude (type 2) of the inputs of q/k/v, o, gate/up and down.',
    input: { ...types, weights: scaledWeights, smoothing: { channelWise } },
  },
  {
    id: 'pre-rope',
    label: '+ pre-RoPE',
    adds: `All key pairs scaled to a largest norm of ${preRope.alpha}, folded into q and k.`,
    input: { ...types, weights: scaledWeights, smoothing: { channelWise, preRope } },
  },
  {
    id: 'post-rope',
    label: '+ post-RoPE',
    adds: `Per key-value head, the ${postRope.topK} channels with the largest keys after RoPE, and their partners, scaled to ${postRope.beta} at run time; the pre-RoPE step leaves their pairs alone.`,
    input: { ...types, weights: scaledWeights, smoothing: { channelWise, preRope, postRope } },
  },
  {
    id: 'fireq-fp8',
    label: 'FireQ σFP8',
    adds: "As the authors run it: also the value multiplier 0.9, and the rounding of their kernel's look-up table, E4M3(q·σ), emulated. (The rows above decode q·σ exactly.)",
    input: {
      ...types,
      weights: { ...scaledWeights, lookupRounding: true },
      smoothing: { channelWise, preRope, postRope, valueMultiplier },
    },
  },
  {
    id: 'fireq-bf16',
    label: 'FireQ σBF16',
    adds: 'As FireQ σFP8, but with BF16 scales for weights, keys and values; so no tensor scale, and no look-up.',
    input: {
      weights: { groupSize: 128, scale: 'bf16' },
      activations: 'e4m3',
      kv: { dtype: 'int4', symmetric: true, scale: 'bf16' },
      smoothing: { channelWise, preRope, postRope, valueMultiplier },
    },
  },
]

export function table2Rows(calibration: CalibrationSize): Table2Row[] {
  return steps.map(({ input, ...row }) => ({
    ...row,
    ...(input && {
      recipe: parseRecipe({ name: row.id, ...input, calibration: { ...calibration, seed: 0 } }, `row ${row.label}`),
    }),
  }))
}
