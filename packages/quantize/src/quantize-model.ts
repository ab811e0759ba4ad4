import { basename, resolve } from 'node:path'
import { calibrationWindows } from '@fireq/calibration'
import { createCheckpoint, type FireqMetadata, type LlamaConfig, type ModelSource } from '@fireq/formats'
import { HiddenStateStore } from './calibration/hidden-state-store.js'
import { QuantizeError } from './errors.js'
import { digestOf, identityOf } from './identity.js'
import { Job } from './job.js'
import { type LayerNote, type LayerReport, reportOf } from './layer/layer-report.js'
import { needsCalibration } from './layer/transforms.js'
import { preflight } from './plan/preflight.js'
import type { QuantizeOptions } from './quantize-options.js'
import { partsOf, type Recipe } from './recipe/recipe.js'
import { version } from './version.js'

export interface QuantizeResult {
  readonly outDir: string
  readonly layers: readonly LayerReport[]
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
  const states = new HiddenStateStore(`${resolve(outDir)}.states`, identity)
  const job = new Job(source, recipe, plan.tensors, writer, options)
  await job.run(windows && { backend: backend!, windows, store: states })
  await states.remove()

  const layers = Array.from(
    { length: config.numHiddenLayers },
    (_, layer) => writer.note(`layer-${layer}`) as LayerNote,
  )
  const calibration = windows && { windows: windows.length, length: windows[0].length, sha256: digestOf(windows) }
  await writer.finish(
    metadataOf(recipe, config, layers, { source: basename(source.dir), ...(calibration && { calibration }) }),
  )
  return { outDir, layers: layers.map(reportOf) }
}

function metadataOf(
  recipe: Recipe,
  { numKeyValueHeads, headDim }: LlamaConfig,
  layers: readonly LayerNote[],
  provenance: Readonly<Record<string, unknown>>,
): Omit<FireqMetadata, 'formatVersion' | 'weights'> {
  const fromParts: Partial<FireqMetadata> = Object.assign(
    {},
    ...partsOf(recipe).map(({ part, value }) => part.metadata?.(value) ?? {}),
  )
  const unscaled = new Array<number>(numKeyValueHeads * headDim).fill(1)
  const keyScale = layers.some((layer) => layer.keyScale) && layers.map((layer) => layer.keyScale ?? unscaled)
  return {
    ...(fromParts as Pick<FireqMetadata, 'activations' | 'queries' | 'probabilities' | 'kv'>),
    ...(keyScale && { keyScale }),
    recipe,
    provenance: { generator: `fireq ${version}`, ...provenance, layers: layers.map(reportOf) },
  }
}
