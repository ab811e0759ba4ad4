import { type CheckpointWriter, type ModelSource, modelTensors, type Tensor } from '@fireq/formats'
import type { Backend } from '@fireq/kernels'
import { CalibrationRun } from './calibration/calibration-run.js'
import type { HiddenStateStore } from './calibration/hidden-state-store.js'
import type { LayerNote } from './layer/layer-report.js'
import { roundLayer, transformLayer } from './layer/round-layer.js'
import { layerTransforms, observersOf } from './layer/transforms.js'
import { layerOf, type TensorPlan } from './plan/tensor-plan.js'
import { ProgressMeter } from './progress.js'
import type { QuantizeOptions } from './quantize-options.js'
import type { Recipe } from './recipe/recipe.js'

/** What the model is run on. */
interface Calibration {
  readonly backend: Backend
  readonly windows: readonly Int32Array[]
  readonly store: HiddenStateStore
}

/** One pass over the groups of a model: everything that writes shards. */
export class Job {
  readonly #source: ModelSource
  readonly #recipe: Recipe
  readonly #plans: ReadonlyMap<string, TensorPlan>
  readonly #writer: CheckpointWriter
  readonly #options: QuantizeOptions
  readonly #meter: ProgressMeter
  readonly #completed: ReadonlySet<string>

  constructor(
    source: ModelSource,
    recipe: Recipe,
    plans: readonly TensorPlan[],
    writer: CheckpointWriter,
    options: QuantizeOptions,
  ) {
    this.#source = source
    this.#recipe = recipe
    this.#plans = new Map(plans.map((plan) => [plan.name, plan]))
    this.#writer = writer
    this.#options = options
    this.#completed = new Set(writer.completed())
    const layersDone = [...this.#completed].filter((key) => layerOf({ key }) !== undefined).length
    this.#meter = new ProgressMeter(source.config.numHiddenLayers, layersDone, options.onProgress)
  }

  async run(calibration: Calibration | undefined): Promise<void> {
    const { signal } = this.#options
    const groups = modelTensors(this.#source.config)
    const missing = groups.filter(({ key }) => !this.#completed.has(key))
    const layersMissing = missing.flatMap((group) => layerOf(group) ?? [])
    const lastMissing = layersMissing.at(-1) ?? -1
    using run =
      calibration && layersMissing.length > 0 ? await this.#startCalibration(calibration, layersMissing[0]) : undefined

    for (const group of groups) {
      signal?.throwIfAborted()
      const layer = layerOf(group)
      const written = this.#completed.has(group.key)
      const names = group.tensors.map(({ name }) => name)
      if (layer === undefined) {
        if (!written) await this.#copy(group.key, names)
      } else if (!written) {
        await this.#quantize(group.key, layer, names, run)
        if (layer < lastMissing) await run?.save()
      } else if (run && layer >= run.layer && layer < lastMissing) {
        await this.#replay(layer, names, run)
      }
    }
    this.#meter.stage('finish')
  }

  async #startCalibration({ backend, windows, store }: Calibration, layer: number): Promise<CalibrationRun> {
    const { signal, saveStatesEveryMs: saveEveryMs = 30_000 } = this.#options
    const { config } = this.#source
    const options = { config, backend, windows, store, saveEveryMs, signal }
    return await CalibrationRun.start(options, layer, (name) => this.#source.tensor(name))
  }

  /** The embedding and the head stay as they are. */
  async #copy(key: string, names: readonly string[]): Promise<void> {
    this.#meter.stage('copy')
    await this.#writer.writeShard(key, await this.#load(names))
  }

  /** Takes the hidden states through a layer that an earlier run has written. */
  async #replay(layer: number, names: readonly string[], run: CalibrationRun): Promise<void> {
    this.#meter.stage('replay', { layer })
    const tensors = await this.#load(names)
    await run.run(
      async (name) => tensors.get(name)!,
      {},
      () => this.#meter.stage('replay', { layer }),
    )
    await run.save()
  }

  async #quantize(
    key: string,
    layer: number,
    names: readonly string[],
    run: CalibrationRun | undefined,
  ): Promise<void> {
    const meter = this.#meter
    meter.beginLayer()
    const tensors = await this.#load(names)
    const transforms = layerTransforms(this.#recipe, this.#source.config, layer)
    if (run) {
      meter.stage('calibrate', { layer })
      await run.run(
        async (name) => tensors.get(name)!,
        observersOf(transforms),
        (part) => meter.stage('calibrate', { layer }, part),
      )
    }
    meter.stage('transform', { layer })
    const draft = transforms.length > 0 ? transformLayer(layer, tensors, transforms) : undefined
    const plans = names.map((name) => this.#plans.get(name)!)
    const rounded = await roundLayer(layer, plans, tensors, draft, {
      signal: this.#options.signal,
      onTensor: (tensor) => meter.stage('round', { layer, tensor }, names.indexOf(tensor) / names.length),
    })
    meter.stage('write', { layer })
    const note: LayerNote = {
      weightErrors: rounded.errors,
      folds: draft?.plan ?? [],
      ...(draft?.keyScale && { keyScale: [...draft.keyScale] }),
    }
    await this.#writer.writeShard(key, rounded.tensors, note)
    meter.endLayer()
  }

  async #load(names: readonly string[]): Promise<Map<string, Tensor>> {
    const tensors = new Map<string, Tensor>()
    for (const name of names) tensors.set(name, await this.#source.tensor(name))
    return tensors
  }
}
