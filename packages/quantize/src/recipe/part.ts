import type { LayerObservers } from '@fireq/calibration'
import type { FireqMetadata, LlamaConfig } from '@fireq/formats'
import type { FoldingPlan, LayerWeights } from '@fireq/smoothing'
import type { z } from 'zod'

/** A layer between loading and rounding: FP32 weights, and what was done to them. */
export interface LayerDraft {
  readonly weights: LayerWeights
  /** What was folded where, for people to read. */
  readonly plan: FoldingPlan
  /** Factors on the keys after RoPE, applied at run time, [numKeyValueHeads · headDim]. */
  readonly keyScale?: Float32Array
}

/** What a part does to one layer. */
export interface LayerTransform {
  /**
   * What must be seen of the layer, as loaded and on calibration tokens, before `apply`. Without it the model needn't
   * run, and no calibration data are asked for.
   */
  readonly observers?: LayerObservers
  /** Returns a layer of the same function (with its key scale), with weights that round better. */
  apply(layer: LayerDraft): LayerDraft
}

export interface PartContext {
  readonly config: LlamaConfig
  readonly layer: number
}

/**
 * One field of a recipe: its schema, and what it asks of the pipeline. A new part is a file in `parts/` and a line in
 * `parts/index.ts`; the pipeline doesn't know parts by name.
 */
export interface RecipePart<Key extends string, Schema extends z.ZodType> {
  readonly key: Key
  /** Takes `undefined` where the part may be left out. Messages complete "expected …". */
  readonly schema: Schema
  /** What to do to a layer before its weights are rounded; nothing, if it returns undefined. Parts act in list order. */
  transform?(value: z.output<Schema>, context: PartContext): LayerTransform | undefined
  /** What the checkpoint must tell whoever runs it. */
  metadata?(value: z.output<Schema>): Partial<FireqMetadata>
  /** What keeps this value from being used on this model, a sentence each. */
  problems?(value: z.output<Schema>, config: LlamaConfig): string[]
}

/** Declares a part; only there to infer its types. */
export function definePart<const Key extends string, Schema extends z.ZodType>(
  part: RecipePart<Key, Schema>,
): RecipePart<Key, Schema> {
  return part
}
