/** A weight [N, K] and the layers that have it. */
export interface GemmShape {
  readonly n: number
  readonly k: number
  /** "Llama-2-7B qkv" */
  readonly layers: readonly string[]
}

export const LAYERS = ['qkv', 'o', 'gate_up', 'down'] as const
export type Layer = (typeof LAYERS)[number]

interface Dimensions {
  readonly hidden: number
  readonly intermediate: number
  /** Of keys, and of values. */
  readonly kv: number
}

/** The linears of a decoder layer, q/k/v and gate/up as one each. */
const MODELS: Readonly<Record<string, Dimensions>> = {
  'Llama-2-7B': { hidden: 4096, intermediate: 11008, kv: 4096 },
  'Llama-2-13B': { hidden: 5120, intermediate: 13824, kv: 5120 },
  'Llama-3-8B': { hidden: 4096, intermediate: 14336, kv: 1024 },
  'Llama-3-70B': { hidden: 8192, intermediate: 28672, kv: 1024 },
}
export const MODEL_NAMES: readonly string[] = Object.keys(MODELS)

/** The dimensions of a feed-forward network: gate_up [2 · intermediate, hidden], down [hidden, intermediate]. */
export interface FeedForwardShape {
  readonly model: string
  readonly hidden: number
  readonly intermediate: number
}

export function feedForwardsOf(models: readonly string[]): FeedForwardShape[] {
  return models.map((model) => {
    const { hidden, intermediate } = MODELS[model]!
    return { model, hidden, intermediate }
  })
}

export const TOKENS: readonly number[] = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384]

/** The shapes of some models' layers, each once. */
export function shapesOf(models: readonly string[], layers: readonly Layer[]): GemmShape[] {
  const found = new Map<string, GemmShape>()
  for (const model of models) {
    const { hidden, intermediate, kv } = MODELS[model]!
    const sizes: Record<Layer, readonly [number, number]> = {
      qkv: [hidden + 2 * kv, hidden],
      o: [hidden, hidden],
      gate_up: [2 * intermediate, hidden],
      down: [hidden, intermediate],
    }
    for (const layer of layers) {
      const [n, k] = sizes[layer]
      const key = `${n}x${k}`
      found.set(key, { n, k, layers: [...(found.get(key)?.layers ?? []), `${model} ${layer}`] })
    }
  }
  return [...found.values()]
}
