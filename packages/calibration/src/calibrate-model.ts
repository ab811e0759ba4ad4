import type { LlamaConfig, ModelSource } from '@fireq/formats'
import type { Backend } from '@fireq/kernels'
import type { TapPoint } from '@fireq/model'
import { type LayerObservers, LayerRunner, type RunLayerOptions } from './layer-runner.js'
import { ChannelAccumulator, type ChannelStatistics } from './statistics/channels.js'
import { type Histogram, HistogramAccumulator } from './statistics/histogram.js'
import { KeyAccumulator, type KeyStatistics } from './statistics/keys.js'

/** What was seen at one point of a layer. */
export interface ActivationStatistics {
  readonly channels: ChannelStatistics
  readonly histogram: Histogram
}

export interface LayerStatistics {
  readonly layer: number
  readonly keys: KeyStatistics
  readonly activations: Readonly<Partial<Record<TapPoint, ActivationStatistics>>>
}

export interface CalibrateOptions extends RunLayerOptions {
  readonly backend: Backend
  readonly windows: readonly Int32Array[]
  /** Points to summarize. Default: the linears' inputs, keys and values. */
  readonly taps?: readonly TapPoint[]
}

const DEFAULT_TAPS: readonly TapPoint[] = ['qkvInput', 'oInput', 'gateUpInput', 'downInput', 'keys', 'values']

/**
 * Takes calibration windows through a model, layer by layer, and summarizes what its activations look like: for plots,
 * or for a smoothing of one's own.
 */
export async function calibrateModel(
  source: Pick<ModelSource, 'config' | 'tensor'>,
  { backend, windows, taps = DEFAULT_TAPS, ...options }: CalibrateOptions,
): Promise<LayerStatistics[]> {
  const { config } = source
  const weights = (name: string) => source.tensor(name)
  using runner = await LayerRunner.start({ config, backend, windows }, weights, options)
  const statistics: LayerStatistics[] = []
  while (runner.layer < config.numHiddenLayers) {
    const layer = runner.layer
    const keys = new KeyAccumulator(config.numKeyValueHeads, config.headDim)
    const watched = taps.map((tap) => ({
      tap,
      channels: new ChannelAccumulator(tapColumns(config, tap)),
      histogram: new HistogramAccumulator(),
    }))
    const observers: LayerObservers = Object.fromEntries(
      watched.map(({ tap, channels, histogram }) => [tap, [channels, histogram]]),
    )
    await runner.run(weights, { ...observers, keys: [keys, ...(observers.keys ?? [])] }, options)
    const activations = watched.map(({ tap, channels, histogram }) => [
      tap,
      { channels: channels.summary(), histogram: histogram.summary() },
    ])
    statistics.push({ layer, keys: keys.summary(), activations: Object.fromEntries(activations) })
  }
  return statistics
}

/** Columns of what a tap shows, [tokens, columns]. */
export function tapColumns(config: LlamaConfig, tap: TapPoint): number {
  switch (tap) {
    case 'queries':
    case 'oInput':
      return config.numAttentionHeads * config.headDim
    case 'keys':
    case 'values':
    case 'scaledKeys':
      return config.numKeyValueHeads * config.headDim
    case 'downInput':
      return config.intermediateSize
    default:
      return config.hiddenSize
  }
}
