import type { Backend } from '@fireq/kernels'
import { LanguageModel, type LoadSource } from '@fireq/model'

export interface SameFunction {
  readonly tokens: number
  /** max |a − b| over all logits, relative to max |a|. */
  readonly relativeDifference: number
  readonly tolerance: number
}

/**
 * Compares the FP32 logits of two models on one window.
 * @throws Error if they differ by more than `tolerance`
 */
export async function verifySameFunction(
  a: LoadSource,
  b: LoadSource,
  backend: Backend,
  window: Int32Array,
  { tolerance = 1e-4, signal }: { readonly tolerance?: number; readonly signal?: AbortSignal } = {},
): Promise<SameFunction> {
  const logitsOf = async (source: LoadSource): Promise<Float32Array> => {
    using model = await LanguageModel.load(source, backend, { plan: { compute: 'f32' }, signal })
    return await model.logits(window, { signal })
  }
  const [expected, received] = [await logitsOf(a), await logitsOf(b)]
  let [largest, difference] = [0, 0]
  for (let i = 0; i < expected.length; i++) {
    largest = Math.max(largest, Math.abs(expected[i]))
    difference = Math.max(difference, Math.abs(expected[i] - received[i]))
  }
  const relativeDifference = difference / largest
  if (!(relativeDifference <= tolerance)) {
    throw new Error(
      `Expected ${b.dir} to have the logits of ${a.dir} within ${tolerance} but they differ by ${relativeDifference}`,
    )
  }
  return { tokens: window.length, relativeDifference, tolerance }
}
