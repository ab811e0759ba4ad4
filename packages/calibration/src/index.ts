export {
  type ActivationStatistics,
  type CalibrateOptions,
  calibrateModel,
  type LayerStatistics,
  tapColumns,
} from './calibrate-model.js'
export { CalibrationError } from './errors.js'
export {
  type LayerObservers,
  LayerRunner,
  type LayerRunnerOptions,
  type LayerSnapshot,
  type RunLayerOptions,
} from './layer-runner.js'
export type { Accumulator } from './statistics/accumulator.js'
export { ChannelAccumulator, type ChannelStatistics } from './statistics/channels.js'
export { type Histogram, HistogramAccumulator, type HistogramBin } from './statistics/histogram.js'
export { KeyAccumulator, type KeyStatistics } from './statistics/keys.js'
export { calibrationWindows, type WindowOptions } from './windows.js'
