import { tapColumns } from '@fireq/calibration'
import type { ModelSource } from '@fireq/formats'
import type { Backend, Results } from '@fireq/kernels'
import { assembleStep, feedsOf, KvPool, loadWeights, modelFamily, planFor, type TapPoint, tapName } from '@fireq/model'

/** The activations whose channels quantization has to cope with: inputs of the linears, and keys as they are stored. */
export const observedTaps = ['scaledKeys', 'qkvInput', 'oInput', 'gateUpInput', 'downInput'] as const
export type ObservedTap = (typeof observedTaps)[number]

/** One layer of a running model. */
export interface LayerView {
  /** max |x| over the tokens, by channel. */
  readonly channelMax: Readonly<Record<ObservedTap, Float32Array>>
  /** The residual stream after the layer, [tokens · hiddenSize]. */
  readonly hidden: Float32Array
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
): Promise<LayerView[]> {
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

  const views = Array.from({ length: config.numHiddenLayers }, () => ({
    channelMax: Object.fromEntries(
      observedTaps.map((tap) => [tap, new Float32Array(tapColumns(config, tap))]),
    ) as Record<ObservedTap, Float32Array>,
    hidden: new Float32Array(window.length * config.hiddenSize),
  }))
  for (let start = 0; start < window.length; start += CHUNK) {
    const tokens = window.subarray(start, start + CHUNK)
    const { feeds } = assembleStep(pool, [{ sequence, tokens, outputs: 'none' }])
    const results = await executable.run(feedsOf(program, feeds), { kv, signal })
    views.forEach(({ channelMax }, layer) => {
      for (const tap of observedTaps) takeMaxima(channelMax[tap], results[tapName(layer, tap)] as Float32Array)
    })
    takeHidden(
      views.map(({ hidden }) => hidden),
      start * config.hiddenSize,
      results,
    )
  }
  return views
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

/** ‖a − b‖ / ‖b‖ (Frobenius) of the residual stream after each layer. */
export function hiddenErrors(views: readonly LayerView[], originals: readonly LayerView[]): number[] {
  return views.map(({ hidden }, layer) => {
    const original = originals[layer].hidden
    let [noise, signal] = [0, 0]
    for (let i = 0; i < hidden.length; i++) {
      noise += (hidden[i] - original[i]) ** 2
      signal += original[i] ** 2
    }
    return Math.sqrt(noise / signal)
  })
}
