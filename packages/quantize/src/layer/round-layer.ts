import { setImmediate } from 'node:timers/promises'
import {
  type DenseTensor,
  dequantizeInt4,
  encodeBf16,
  encodeF16,
  type Int4Tensor,
  quantizeInt4,
  type Tensor,
  toFloat32,
} from '@fireq/formats'
import { QuantizeError } from '../errors.js'
import type { WeightOptions } from '../parts/weights.js'
import type { TensorPlan } from '../plan/tensor-plan.js'
import type { LayerDraft, LayerTransform } from '../recipe/part.js'
import { fromLayerWeights, toLayerWeights } from './layer-tensors.js'
import { type WeightError, weightError } from './weight-error.js'

/** A layer as it is written. */
interface RoundedLayer {
  readonly tensors: ReadonlyMap<string, Tensor>
  /** Of every INT4 weight, against the weight that the transforms left. */
  readonly errors: Readonly<Record<string, WeightError>>
}

/** Applies the transforms to a layer, in FP32. */
export function transformLayer(
  layer: number,
  tensors: ReadonlyMap<string, Tensor>,
  transforms: readonly LayerTransform[],
): LayerDraft {
  const draft: LayerDraft = { weights: toLayerWeights(layer, tensors), plan: [] }
  try {
    return transforms.reduce((current, transform) => transform.apply(current), draft)
  } catch (cause) {
    throw new QuantizeError(`Layer ${layer}: ${(cause as Error).message}`, { cause })
  }
}

/**
 * Rounds a layer tensor by tensor.
 * @param plans what becomes of its tensors
 * @param tensors as loaded
 * @param draft what the transforms made of them, if there are any
 */
export async function roundLayer(
  layer: number,
  plans: readonly TensorPlan[],
  tensors: ReadonlyMap<string, Tensor>,
  draft: LayerDraft | undefined,
  { signal, onTensor }: { signal?: AbortSignal; onTensor?: (name: string) => void } = {},
): Promise<RoundedLayer> {
  const transformed = draft && fromLayerWeights(layer, draft.weights)
  const written = new Map<string, Tensor>()
  const errors: Record<string, WeightError> = {}
  for (const plan of plans) {
    const { name, choice } = plan
    await setImmediate() // so that an abort is heard and a progress bar moves
    signal?.throwIfAborted()
    onTensor?.(name)
    const tensor = tensors.get(name)!
    const values = transformed?.get(name)
    if (choice === 'skip') {
      written.set(name, values ? keep(plan, values) : tensor)
      continue
    }
    const original = values ?? toFloat32(tensor)
    const rounded = round(plan, choice, original)
    written.set(name, rounded)
    errors[name] = weightError(original, dequantizeInt4(rounded))
  }
  return { tensors: written, errors }
}

function round(
  { name, shape }: TensorPlan,
  { tensorScale, ...options }: WeightOptions,
  values: Float32Array,
): Int4Tensor {
  try {
    return quantizeInt4(values, shape as readonly [number, number], {
      ...options,
      tensorScale: tensorScale === 'off' ? 0 : tensorScale,
    })
  } catch (cause) {
    throw new QuantizeError(`${name}: ${(cause as Error).message}`, { cause })
  }
}

/** A transformed tensor that isn't rounded to INT4, in its planned type. */
function keep({ shape, to }: TensorPlan, values: Float32Array): DenseTensor {
  if (to === 'bf16' || to === 'f16') {
    return { kind: 'dense', dtype: to, shape, data: to === 'bf16' ? encodeBf16(values) : encodeF16(values) }
  }
  return { kind: 'dense', dtype: 'f32', shape, data: values }
}
