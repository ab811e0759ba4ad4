import { bf16BitsToF32, concatRows, e4m3BitsToF32, f16BitsToF32, roundE4m3, type Tensor } from '@fireq/formats'
import type { LoadOptions, WeightSet, WeightSource } from '../backend.js'
import { BackendError } from '../errors.js'
import type { ReferenceWeight } from '../program/op.js'
import type { WeightSpec } from '../program/program.js'

function referenceWeight(tensor: Tensor): ReferenceWeight {
  if (tensor.kind === 'dense') {
    const columns = tensor.shape.at(-1) ?? 1
    const decode = tensor.dtype === 'f32' ? (v: number) => v : tensor.dtype === 'bf16' ? bf16BitsToF32 : f16BitsToF32
    return {
      shape: tensor.shape,
      channelScale: () => 1,
      decodeRow(n, out) {
        for (let k = 0; k < columns; k++) out[k] = decode(tensor.data[n * columns + k]!)
      },
    }
  }
  const { codes, groupSize, groupScale, channelScale } = tensor
  const columns = tensor.shape[1]
  const scaleAt = (g: number): number => {
    const bits = groupScale.data[g]!
    return groupScale.dtype === 'f32' ? bits : groupScale.dtype === 'bf16' ? bf16BitsToF32(bits) : e4m3BitsToF32(bits)
  }
  return {
    shape: tensor.shape,
    channelScale: (n) => channelScale?.[n] ?? 1,
    decodeRow(n, out) {
      for (let k = 0; k < columns; k++) {
        const at = n * columns + k
        const code = ((codes[at >> 1]! >> (at % 2 === 0 ? 0 : 4)) & 15) - 8
        const product = code * scaleAt((at / groupSize) | 0)
        out[k] = tensor.lookupRounding ? roundE4m3(product) : product
      }
    },
  }
}

export class ReferenceWeights implements WeightSet {
  readonly bytes: number
  #weights: Map<string, ReferenceWeight> | undefined

  constructor(tensors: ReadonlyMap<string, Tensor>) {
    this.bytes = [...tensors.values()].reduce((sum, tensor) => sum + tensorBytes(tensor), 0)
    this.#weights = new Map([...tensors].map(([name, tensor]) => [name, referenceWeight(tensor)]))
  }

  has(name: string): boolean {
    return this.#weights?.has(name) ?? false
  }

  get(name: string): ReferenceWeight {
    if (this.#weights === undefined)
      throw new BackendError(`Weight '${name}' is used after its weight set was disposed`)
    const weight = this.#weights.get(name)
    if (weight === undefined) throw new BackendError(`Weight '${name}' is not in this weight set`)
    return weight
  }

  dispose(): void {
    this.#weights = undefined
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** Fetches a weight's parts, joins their rows and checks the shape. Every backend's loader starts with this. */
export async function fetchWeight(name: string, spec: WeightSpec, source: WeightSource): Promise<Tensor> {
  const parts: Tensor[] = []
  for (const part of spec.parts) parts.push(await source(part))
  const tensor = parts.length === 1 ? parts[0]! : concatRows(parts)
  if (tensor.shape.length !== spec.shape.length || tensor.shape.some((dim, i) => dim !== spec.shape[i])) {
    throw new BackendError(
      `Expected weight '${name}' (${spec.parts.join(' + ')}) of shape [${spec.shape.join(', ')}] but received [${tensor.shape.join(', ')}]`,
    )
  }
  return tensor
}

function tensorBytes(tensor: Tensor): number {
  if (tensor.kind === 'dense') return tensor.data.byteLength
  return tensor.codes.byteLength + tensor.groupScale.data.byteLength + (tensor.channelScale?.byteLength ?? 0)
}

export async function loadReferenceWeights(
  specs: Readonly<Record<string, WeightSpec>>,
  source: WeightSource,
  { signal, onProgress }: LoadOptions = {},
): Promise<ReferenceWeights> {
  const tensors = new Map<string, Tensor>()
  const total = Object.keys(specs).length
  let bytes = 0
  for (const [name, spec] of Object.entries(specs)) {
    signal?.throwIfAborted()
    const tensor = await fetchWeight(name, spec, source)
    tensors.set(name, tensor)
    bytes += tensorBytes(tensor)
    onProgress?.({ weight: name, done: tensors.size, total, bytes })
  }
  return new ReferenceWeights(tensors)
}
