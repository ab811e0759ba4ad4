import type { LlamaConfig } from '@fireq/formats'
import type { Backend, Executable, Feeds, KvCache, Program, WeightSource } from '@fireq/kernels'
import { type LlamaPlan, modelFamily, type TapPoint, tapName } from '@fireq/model'
import { CalibrationError } from './errors.js'
import type { Accumulator } from './statistics/accumulator.js'

/** Who watches what within one layer. */
export type LayerObservers = Readonly<Partial<Record<TapPoint, readonly Accumulator<unknown>[]>>>

export interface LayerRunnerOptions {
  readonly config: LlamaConfig
  readonly backend: Backend
  /** Token ids; each window is a sequence of its own, from position 0. */
  readonly windows: readonly Int32Array[]
}

/** Where a runner stands: enough to go on from in another process. */
export interface LayerSnapshot {
  /** The layer that takes these states. */
  readonly layer: number
  /** Per window [tokens, hiddenSize]. */
  readonly hidden: readonly Float32Array[]
}

export interface RunLayerOptions {
  readonly signal?: AbortSignal
  /** Called after each window. */
  readonly onProgress?: (progress: { layer: number; windows: number; done: number }) => void
}

/** Calibration looks at the model itself: FP32 between ops, nothing quantized. */
const plan: LlamaPlan = {
  compute: 'f32',
  activations: 'none',
  queries: 'none',
  probabilities: 'f32',
  kv: { dtype: 'f32' },
}

/**
 * Takes token windows through a model one layer at a time, with the hidden states of all windows kept between layers in
 * FP32: windows × tokens × hiddenSize × 4 bytes, 335 MB for 10 × 2048 tokens of a model of 4096. So only one layer's
 * weights are ever needed, and whoever brings them may change the next layer's by what the observers saw of this one.
 */
export class LayerRunner implements Disposable {
  readonly #config: LlamaConfig
  readonly #backend: Backend
  readonly #hidden: Float32Array[]
  #kv: KvCache | undefined
  #layer: number
  #broken = false

  private constructor({ config, backend }: LayerRunnerOptions, { layer, hidden }: LayerSnapshot) {
    this.#config = config
    this.#backend = backend
    this.#layer = layer
    this.#hidden = [...hidden]
  }

  /** Embeds the windows. `weights` is asked for the embedding, and only for that. */
  static async start(
    options: LayerRunnerOptions,
    weights: WeightSource,
    { signal }: RunLayerOptions = {},
  ): Promise<LayerRunner> {
    const { config, backend, windows } = options
    checkWindows(config, windows)
    const program = modelFamily(config.modelType).build(config, plan, { layers: [0, 0], from: 'tokens', to: 'hidden' })
    const hidden: Float32Array[] = []
    await withExecutable(backend, program, weights, signal, async (executable) => {
      for (const tokens of windows) {
        const { hiddenOut } = await executable.run({ tokens }, { signal })
        hidden.push(hiddenOut as Float32Array)
      }
    })
    return new LayerRunner(options, { layer: 0, hidden })
  }

  /**
   * Goes on from a snapshot of the same model and windows.
   * @throws CalibrationError where the snapshot doesn't fit them
   */
  static resume(options: LayerRunnerOptions, snapshot: LayerSnapshot): LayerRunner {
    const { config, windows } = options
    checkWindows(config, windows)
    if (!Number.isInteger(snapshot.layer) || snapshot.layer < 0 || snapshot.layer > config.numHiddenLayers) {
      throw new CalibrationError(
        `Expected a snapshot of a layer from 0 to ${config.numHiddenLayers} but received ${snapshot.layer}`,
      )
    }
    const expected = windows.map((window) => window.length * config.hiddenSize)
    const received = snapshot.hidden.map((states) => states.length)
    if (expected.join() !== received.join()) {
      throw new CalibrationError(
        `Expected a snapshot of ${expected.length} windows of ${expected[0]} values but received ${received.length} of ${received[0]}`,
      )
    }
    return new LayerRunner(options, snapshot)
  }

  /** The layer that runs next. */
  get layer(): number {
    return this.#layer
  }

  /** The hidden states as they stand; not a copy, but a later layer replaces them and changes none. */
  snapshot(): LayerSnapshot {
    this.#checkUsable()
    return { layer: this.#layer, hidden: [...this.#hidden] }
  }

  /**
   * Runs the next layer on every window and shows the observers what they watch. If it fails or is aborted, the windows
   * stand in different layers and the runner can't be used any more.
   */
  async run(
    weights: WeightSource,
    observers: LayerObservers = {},
    { signal, onProgress }: RunLayerOptions = {},
  ): Promise<void> {
    this.#checkUsable()
    const layer = this.#layer
    const taps = (Object.keys(observers) as TapPoint[]).filter((tap) => observers[tap]!.length > 0)
    const program = modelFamily(this.#config.modelType).build(this.#config, plan, {
      layers: [layer, layer + 1],
      from: 'hidden',
      to: 'hidden',
      taps,
    })
    this.#broken = true
    await withExecutable(this.#backend, program, weights, signal, async (executable) => {
      for (const [i, hidden] of this.#hidden.entries()) {
        const kv = this.#cache(program)
        const results = await executable.run(this.#feeds(hidden), { kv, signal })
        for (const tap of taps) observe(layer, tap, observers[tap]!, results[tapName(layer, tap)] as Float32Array)
        this.#hidden[i] = results.hiddenOut as Float32Array
        onProgress?.({ layer, windows: this.#hidden.length, done: i + 1 })
      }
    })
    this.#broken = false
    this.#layer++
  }

  dispose(): void {
    this.#kv?.dispose()
    this.#kv = undefined
    this.#broken = true
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  /** One sequence on the cache's one page. */
  #feeds(hidden: Float32Array): Feeds {
    const tokens = hidden.length / this.#config.hiddenSize
    const positions = Int32Array.from({ length: tokens }, (_, t) => t)
    return {
      hidden,
      positions,
      slots: positions,
      queryEnds: Int32Array.of(tokens),
      contextLengths: Int32Array.of(tokens),
      pageTable: Int32Array.of(0),
    }
  }

  /** One layer's cache serves all layers: each window writes what it reads. */
  #cache(program: Program): KvCache {
    const longest = Math.max(...this.#hidden.map((hidden) => hidden.length)) / this.#config.hiddenSize
    this.#kv ??= this.#backend.createKvCache(program.kv!, { pages: 1, pageSize: longest })
    return this.#kv
  }

  #checkUsable(): void {
    if (this.#broken) throw new CalibrationError('This runner failed, was aborted, or was disposed: start another')
  }
}

async function withExecutable(
  backend: Backend,
  program: Program,
  source: WeightSource,
  signal: AbortSignal | undefined,
  use: (executable: Executable) => Promise<void>,
): Promise<void> {
  using weights = await backend.loadWeights(program.weights, source, { signal })
  using executable = await backend.compile(program, weights)
  await use(executable)
}

function observe(layer: number, tap: TapPoint, observers: readonly Accumulator<unknown>[], rows: Float32Array): void {
  try {
    for (const observer of observers) observer.add(rows)
  } catch (error) {
    throw new CalibrationError(`Layer ${layer}, ${tap}: ${(error as Error).message}`, { cause: error })
  }
}

function checkWindows(config: LlamaConfig, windows: readonly Int32Array[]): void {
  if (windows.length === 0) throw new CalibrationError('Expected at least one calibration window but received none')
  for (const [i, { length }] of windows.entries()) {
    if (length === 0 || length > config.maxPositionEmbeddings) {
      throw new CalibrationError(
        `Expected 1 to ${config.maxPositionEmbeddings} tokens (max_position_embeddings) in calibration window ${i} but received ${length}`,
      )
    }
  }
}
