import type { ModelSource } from '@fireq/formats'
import type { Backend, LoadOptions, Program, WeightSet, WeightSpec } from '@fireq/kernels'
import { ModelError } from '../errors.js'

/** What of a checkpoint is needed to bind its tensors to a program's weights. */
export type TensorSource = Pick<ModelSource, 'dir' | 'has' | 'shape' | 'tensor'>

/**
 * Packs the weights of one or several programs (by their names, each once) for a backend. Everything is checked against
 * the checkpoint's header before the first tensor is read.
 * @throws ModelError naming the checkpoint and the tensor that is missing or has the wrong shape
 */
export async function loadWeights(
  programs: readonly Program[],
  source: TensorSource,
  backend: Backend,
  options?: LoadOptions,
): Promise<WeightSet> {
  const specs: Record<string, WeightSpec> = Object.assign({}, ...programs.map(({ weights }) => weights))
  for (const spec of Object.values(specs)) checkWeight(spec, source)
  return await backend.loadWeights(specs, (name) => source.tensor(name), options)
}

function checkWeight({ shape, parts }: WeightSpec, source: TensorSource): void {
  const missing = parts.find((part) => !source.has(part))
  if (missing !== undefined) throw new ModelError(`Expected a tensor '${missing}' in ${source.dir} but there is none`)
  const shapes = parts.map((part) => source.shape(part))
  const rows = shapes.reduce((sum, [first = 0]) => sum + first, 0)
  const further = shape.slice(1)
  const fits = shapes.every((dims) => dims.length === shape.length && further.every((dim, i) => dim === dims[i + 1]))
  if (!fits || rows !== shape[0]) {
    const found = parts.map((part, i) => `'${part}' of [${shapes[i]!.join(', ')}]`).join(', ')
    throw new ModelError(
      `Expected ${parts.length > 1 ? 'rows that make ' : ''}[${shape.join(', ')}] in ${source.dir} but received ${found}`,
    )
  }
}
