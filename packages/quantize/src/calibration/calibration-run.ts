import { type LayerObservers, LayerRunner } from '@fireq/calibration'
import type { LlamaConfig } from '@fireq/formats'
import type { Backend, WeightSource } from '@fireq/kernels'
import type { HiddenStateStore } from './hidden-state-store.js'

interface CalibrationOptions {
  readonly config: LlamaConfig
  readonly backend: Backend
  readonly windows: readonly Int32Array[]
  readonly store: HiddenStateStore
  /** Least time between two savings of the hidden states. */
  readonly saveEveryMs: number
  readonly signal?: AbortSignal
}

/** The calibration windows on their way through the original model, alongside the layers being quantized. */
export class CalibrationRun implements Disposable {
  readonly #options: CalibrationOptions
  readonly #runner: LayerRunner
  #saved = performance.now()

  private constructor(options: CalibrationOptions, runner: LayerRunner) {
    this.#options = options
    this.#runner = runner
  }

  /**
   * Starts at the embedding, or at hidden states that an earlier run has left, if they stand at `layer` or before it.
   * @param weights is asked for the embedding
   */
  static async start(options: CalibrationOptions, layer: number, weights: WeightSource): Promise<CalibrationRun> {
    const saved = await options.store.load()
    if (saved && saved.layer <= layer) return new CalibrationRun(options, LayerRunner.resume(options, saved))
    return new CalibrationRun(options, await LayerRunner.start(options, weights, { signal: options.signal }))
  }

  /** The layer that runs next. */
  get layer(): number {
    return this.#runner.layer
  }

  /** Runs the next layer, with the weights of the original model. */
  async run(weights: WeightSource, observers: LayerObservers, onWindow: (part: number) => void): Promise<void> {
    const onProgress = ({ done, windows }: { done: number; windows: number }) => onWindow(done / windows)
    await this.#runner.run(weights, observers, { signal: this.#options.signal, onProgress })
  }

  /** Saves the hidden states, unless that was done a moment ago. To be called once the layers before are written. */
  async save(): Promise<void> {
    if (performance.now() - this.#saved < this.#options.saveEveryMs) return
    await this.#options.store.save(this.#runner.snapshot())
    this.#saved = performance.now()
  }

  dispose(): void {
    this.#runner.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}
