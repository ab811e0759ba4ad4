import { tapColumns } from '@fireq/calibration'
import type { ModelSource } from '@fireq/formats'
import type { Backend, Results } from '@fireq/kernels'
import { assembleStep, feedsOf, KvPool, loadWeights, modelFamily, planFor, type TapPoint, tapName } from '@fireq/model'

/** The activations whose channels quantization has to cope with: inputs of the linears, and keys as they are stored. */
export const observedTaps = ['scaledKeys', 'qkvInput', 'oInput', 'gateUpInput', 'downInput'] as const
export type ObservedTap = (typeof observedTaps)[number]

/** max |x| over the tokens, by channel, of one layer's activations. */
export type ChannelMaxima = Readonly<Record<ObservedTap, Float32Array>>

/** A running model, layer by layer. */
export interface Observation {
  readonly maxima: readonly ChannelMaxima[]
  /** The residual stream after each layer, [tokens · hiddenSize]. */
  readonly hidden: readonly Float32Array[]
}

/** Tokens in a step: bounds the memory that taps of all layers take. */
const CHUNK = 128
const PAGE = 64

/** Runs a model, quantized or not, as its checkpoint says, on one window, and looks at every layer; FP32 between ops. */
export async function observe(
  source: ModelSource,
  backend: Backend,
  window: Int32Array,
  signal?: AbortSignal,
): Promise<Observation> {
  const { config } = source
  const family = modelFamily(config.modelType)
  const plan = planFor(source, family.layerLinears, { compute: 'f32' })
  const taps: TapPoint[] = [...observedTaps, 'attentionOutput', 'mlpOutput']
  const program = family.build(config, plan, { to: 'hidden', taps })
  using weights = await loadWeights([program], source, backend, { signal })
  using executable = await backend.compile(program, weights)
  const pool = new KvPool(Math.ceil(window.length / PAGE), PAGE)
  using kv = backend.createKvCache(program.kv!, { pages: pool.pages, pageSize: PAGE })
  const sequence = pool.open()

  const layers = Array.from({ length: config.numHiddenLayers })
  const maxima = layers.map(
    () =>
      Object.fromEntries(
        observedTaps.map((tap) => [tap, new Float32Array(tapColumns(config, tap))]),
      ) as unknown as ChannelMaxima,
  )
  const hidden = layers.map(() => new Float32Array(window.length * config.hiddenSize))
  for (let start = 0; start < window.length; start += CHUNK) {
    const tokens = window.subarray(start, start + CHUNK)
    const { feeds } = assembleStep(pool, [{ sequence, tokens, outputs: 'none' }])
    const results = await executable.run(feedsOf(program, feeds), { kv, signal })
    maxima.forEach((max, layer) => {
      for (const tap of observedTaps) takeMaxima(max[tap], results[tapName(layer, tap)] as Float32Array)
    })
    takeHidden(hidden, start * config.hiddenSize, results)
  }
  return { maxima, hidden }
}

function takeMaxima(max: Float32Array, rows: Float32Array): void {
  for (let i = 0; i < rows.length; i++) {
    const channel = i % max.length
    const magnitude = Math.abs(rows[i])
    if (magnitude > max[channel]) max[channel] = magnitude
  }
}

/** The stream after each layer, from the last one back: what a layer left is what the next one left less what it added. */
function takeHidden(hidden: readonly Float32Array[], at: number, results: Results): void {
  let stream = results.hiddenOut as Float32Array
  for (let layer = hidden.length - 1; layer >= 0; layer--) {
    hidden[layer].set(stream, at)
    const attention = results[tapName(layer, 'attentionOutput')] as Float32Array
    const mlp = results[tapName(layer, 'mlpOutput')] as Float32Array
    stream = stream.map((value, i) => value - attention[i] - mlp[i])
  }
}

/** ‖h − ĥ‖ / ‖h‖ (Frobenius) of the residual stream after each layer. */
export function hiddenErrors(observed: Observation, original: Observation): number[] {
  return observed.hidden.map((hidden, layer) => {
    const expected = original.hidden[layer]
    let [noise, signal] = [0, 0]
    for (let i = 0; i < hidden.length; i++) {
      noise += (hidden[i] - expected[i]) ** 2
      signal += expected[i] ** 2
    }
    return Math.sqrt(noise / signal)
  })
}
