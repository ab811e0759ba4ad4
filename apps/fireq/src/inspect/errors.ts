import type { LayerReport } from '@fireq/quantize'
import type { ListedTensor, Listing } from './listing.js'
import { rowBlocks } from './rows.js'

/** ‖W − Ŵ‖ / ‖W‖ by tensor. */
export type TensorErrors = ReadonlyMap<string, number>

/** Errors that quantizing left in `fireq.json`: of each rounded weight against what smoothing made of the original. */
export function recordedErrors({ model }: Listing): TensorErrors | undefined {
  const layers = model?.quantization?.provenance?.layers
  if (!Array.isArray(layers)) return undefined
  const errors = new Map<string, number>()
  for (const { weightErrors = {} } of layers as Partial<LayerReport>[]) {
    for (const [name, error] of Object.entries(weightErrors)) {
      if (typeof error?.relative === 'number') errors.set(name, error.relative)
    }
  }
  return errors.size === 0 ? undefined : errors
}

/** Errors of all tensors against those of the same name in another model, read in blocks. */
export async function errorsAgainst(
  listing: Listing,
  original: Listing,
  onTensor: (name: string, fraction: number) => void,
  signal: AbortSignal,
): Promise<TensorErrors> {
  const others = new Map(original.tensors.map((tensor) => [tensor.name, tensor]))
  const errors = new Map<string, number>()
  for (const [i, tensor] of listing.tensors.entries()) {
    const other = others.get(tensor.name)
    if (!other?.read || !tensor.read) continue
    onTensor(tensor.name, i / listing.tensors.length)
    if (other.shape.join() !== tensor.shape.join()) {
      throw new Error(
        `${original.path}: Expected the shape [${tensor.shape}] for tensor ${JSON.stringify(tensor.name)} but received [${other.shape}]`,
      )
    }
    errors.set(tensor.name, await relativeError(other, tensor, signal))
  }
  if (errors.size === 0) throw new Error(`${original.path}: Expected tensors of the same names but received none`)
  return errors
}

async function relativeError(original: ListedTensor, rounded: ListedTensor, signal: AbortSignal): Promise<number> {
  let [signalPower, noise] = [0, 0]
  for (const rows of rowBlocks(original)) {
    signal.throwIfAborted()
    const [a, b] = [await original.read!(rows), await rounded.read!(rows)]
    for (let i = 0; i < a.length; i++) {
      signalPower += a[i] * a[i]
      noise += (a[i] - b[i]) ** 2
    }
  }
  return noise === 0 ? 0 : Math.sqrt(noise / signalPower)
}

/** Whether a model's weights were scaled on purpose, so that they differ from the original's by more than rounding. */
export function isSmoothed({ model }: Listing): boolean {
  const layers = model?.quantization?.provenance?.layers
  return Array.isArray(layers) && layers.some(({ folds }: Partial<LayerReport>) => (folds?.length ?? 0) > 0)
}
