import { basename } from 'node:path'
import { calibrationWindows } from '@fireq/calibration'
import {
  type CheckpointWriter,
  createCheckpoint,
  type FireqMetadata,
  type ModelSource,
  modelTensors,
  type Tensor,
} from '@fireq/formats'
import type { Backend } from '@fireq/kernels'
import type { FoldingPlan } from '@fireq/smoothing'
import { CalibrationRun } from './calibration/calibration-run.js'
import { HiddenStateFile } from './calibration/hidden-state-file.js'
import { QuantizeError } from './errors.js'
import { digestOf, identityOf } from './identity.js'
import { roundLayer, transformLayer } from './layer/round-layer.js'
import { layerTransforms, needsCalibration, observersOf } from './layer/transforms.js'
import type { WeightError } from './layer/weight-error.js'
import { preflight } from './plan/preflight.js'
import { layerOf, type TensorPlan } from './plan/tensor-plan.js'
import { ProgressMeter, type QuantizeProgress } from './progress.js'
import { partsOf, type Recipe } from './recipe/recipe.js'
import { version } from './version.js'

export interface QuantizeOptions {
  /** Runs the model on calibration tokens. Needed only by recipes that look at activations. */
  readonly backend?: Backend
  /** The token stream that calibration windows are drawn from. Needed by the same. */
  readonly calibrationIds?: Int32Array
  /** Replace a model that is in the way, and an unfinished one of another source or recipe. Default false. */
  readonly overwrite?: boolean
  /** Aborting rejects with its reason and leaves what is written to be resumed. */
  readonly signal?: AbortSignal
  readonly onProgress?: (progress: QuantizeProgress) => void
  /** Least time between two savings of the calibration's hidden states. Default 30 s. */
  readonly saveStatesEveryMs?: number
}

/** What is known of one layer when it is written; kept in `fireq.json` under `provenance.layers`. */
export interface LayerReport {
  /** By tensor, against the weights that smoothing left. */
  readonly weightErrors: Readonly<Record<string, WeightError>>
  readonly folds: FoldingPlan
}

export interface QuantizeResult {
  readonly outDir: string
  readonly layers: readonly LayerReport[]
}

/** What a shard's journal entry keeps for `fireq.json`. */
interface LayerNote extends LayerReport {
  readonly keyScale?: readonly number[]
}

/**
 * Quantizes a model directory layer by layer: load, look at it on calibration tokens, smooth, round, write. Weights of at
 * most two layers are in memory. Calibration runs the original model, in FP32; a recipe that needs none never runs it.
 *
 * Killed at any moment, the same call goes on with the layers that are missing, and the result is the same to the bit:
 * layers are written atomically, and the hidden states of calibration are saved beside them, or else recomputed.
 * @throws QuantizeError with everything that preflight found wrong, before any work
 */
export async function quantizeModel(
  source: ModelSource,
  recipe: Recipe,
  outDir: string,
  options: QuantizeOptions = {},
): Promise<QuantizeResult> {
  const { backend, calibrationIds, overwrite, signal } = options
  const plan = await preflight(source, recipe, outDir, { calibrationIds, hasBackend: backend !== undefined, overwrite })
  if (plan.problems.length > 0) throw new QuantizeError(plan.problems.join('\n'))
  signal?.throwIfAborted()

  const { config } = source
  const calibrated = needsCalibration(recipe, config)
  const windows = calibrated
    ? calibrationWindows(calibrationIds!, { ...recipe.calibration, count: recipe.calibration.windows })
    : undefined
  const identity = await identityOf(source, recipe, windows && { backend: backend!.name, windows })
  await using writer = await createCheckpoint(outDir, {
    sourceDir: source.dir,
    sourceConfig: source.rawConfig,
    identity,
    overwrite,
  })
  const states = new HiddenStateFile(`${outDir}.states`, identity)
  const job = new Job(source, recipe, plan.tensors, writer, options)
  await job.run(windows && { backend: backend!, windows, file: states })
  await states.remove()

  const layers = Array.from(
    { length: config.numHiddenLayers },
    (_, layer) => writer.note(`layer-${layer}`) as LayerNote,
  )
  const calibration = windows && { windows: windows.length, length: windows[0].length, sha256: digestOf(windows) }
  await writer.finish(metadataOf(recipe, layers, { source: basename(source.dir), ...(calibration && { calibration }) }))
  return { outDir, layers: layers.map(reportOf) }
}

interface Calibration {
  readonly backend: Backend
  readonly windows: readonly Int32Array[]
  readonly file: HiddenStateFile
}

/** One run over the groups of a model. */
class Job {
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
        await run?.save()
      } else if (run && layer >= run.layer && layer < lastMissing) {
        await this.#replay(layer, names, run)
      }
    }
    this.#meter.stage('finish')
  }

  async #startCalibration({ backend, windows, file }: Calibration, layer: number): Promise<CalibrationRun> {
    const { signal, saveStatesEveryMs: saveEveryMs = 30_000 } = this.#options
    const { config } = this.#source
    const options = { config, backend, windows, file, saveEveryMs, signal }
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

function metadataOf(
  recipe: Recipe,
  layers: readonly LayerNote[],
  provenance: Readonly<Record<string, unknown>>,
): Omit<FireqMetadata, 'formatVersion' | 'weights'> {
  const fromParts: Partial<FireqMetadata> = Object.assign(
    {},
    ...partsOf(recipe).map(({ part, value }) => part.metadata?.(value) ?? {}),
  )
  const keyScale = layers.some((layer) => layer.keyScale) && layers.map((layer) => layer.keyScale!)
  return {
    ...(fromParts as Pick<FireqMetadata, 'activations' | 'queries' | 'probabilities' | 'kv'>),
    ...(keyScale && { keyScale }),
    recipe,
    provenance: { generator: `fireq ${version}`, ...provenance, layers: layers.map(reportOf) },
  }
}

function reportOf({ weightErrors, folds }: LayerReport): LayerReport {
  return { weightErrors, folds }
}
