import { readdir, stat, statfs } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import type { LlamaConfig, ModelSource } from '@fireq/formats'
import { needsCalibration } from '../layer/transforms.js'
import { partsOf, type Recipe } from '../recipe/recipe.js'
import { tensorPattern } from '../recipe/tensor-pattern.js'
import { planTensors, type TensorPlan } from './tensor-plan.js'
import { choiceProblems } from './weight-choice.js'

export interface PreflightOptions {
  /** The token stream that calibration windows are drawn from. */
  readonly calibrationIds?: Int32Array
  /** Whether there is a backend to run the model on. Default true. */
  readonly hasBackend?: boolean
  /** Replace a model that is in the way. */
  readonly overwrite?: boolean
}

/** What a quantization will need and do, and what is wrong, before any work. */
export interface Preflight {
  /** Each a sentence; with any of them, quantizing throws. */
  readonly problems: readonly string[]
  /** Things to know that keep nothing from working. */
  readonly notes: readonly string[]
  readonly tensors: readonly TensorPlan[]
  readonly sourceBytes: number
  readonly outputBytes: number
  /** Of the weights that become INT4, scales included. */
  readonly bitsPerWeight: number
  readonly needs: {
    /** The output, and hidden states that are kept to resume from. */
    readonly diskBytes: number
    /** An estimate of the peak. */
    readonly memoryBytes: number
    /** Tokens that are run through the model; 0 where the recipe needs none. */
    readonly calibrationTokens: number
    /** Multiplications and additions of calibration, 2 · weights · tokens: what its time depends on. */
    readonly calibrationFlops: number
    /** Weights that are rounded: what the rest of the time depends on. */
    readonly weights: number
  }
  readonly free: { readonly diskBytes: number; readonly memoryBytes: number }
}

/** Looks at everything that can be known before the first tensor is read; writes nothing. */
export async function preflight(
  source: ModelSource,
  recipe: Recipe,
  outDir: string,
  options: PreflightOptions = {},
): Promise<Preflight> {
  const { config } = source
  const problems: string[] = []
  const notes: string[] = []
  if (source.quantization) problems.push(`${source.dir} is quantized already: expected an unquantized model`)
  for (const { part, value } of partsOf(recipe)) problems.push(...(part.problems?.(value, config) ?? []))
  problems.push(...choiceProblems(config, recipe))
  const tensors = planTensors(source, recipe)
  problems.push(...idleOverrides(recipe, tensors))

  const calibrated = needsCalibration(recipe, config)
  if (calibrated) problems.push(...calibrationProblems(config, recipe, options))
  const needs = needsOf(config, recipe, tensors, calibrated)
  const output = await lookAtOutput(resolve(outDir), options.overwrite ?? false)
  problems.push(...output.problems)
  notes.push(...output.notes, ...interopNotes(recipe, tensors))

  const free = { diskBytes: output.freeBytes, memoryBytes: process.availableMemory() }
  const missing = needs.diskBytes - output.writtenBytes - free.diskBytes
  if (missing > 0) problems.push(`The disk of ${outDir} has ${free.diskBytes} bytes free, ${missing} too few`)
  if (needs.memoryBytes > free.memoryBytes) {
    notes.push(
      `About ${needs.memoryBytes} bytes of memory are needed but ${free.memoryBytes} are free: expect swapping`,
    )
  }
  const rounded = tensors.filter(({ choice }) => choice !== 'skip')
  return {
    problems,
    notes,
    tensors,
    sourceBytes: sum(tensors, ({ bytesBefore }) => bytesBefore),
    outputBytes: sum(tensors, ({ bytesAfter }) => bytesAfter),
    bitsPerWeight: rounded.length === 0 ? 0 : (8 * sum(rounded, ({ bytesAfter }) => bytesAfter)) / needs.weights,
    needs,
    free,
  }
}

/** An override that matches nothing is a typing error, and would leave what it was meant for as it is. */
function idleOverrides(recipe: Recipe, tensors: readonly TensorPlan[]): string[] {
  const names = tensors.filter(({ shape }) => shape.length === 2).map(({ name }) => name)
  return recipe.overrides
    .filter(({ match }) => !names.some((name) => tensorPattern(match).test(name)))
    .map(({ match }) => `The override "${match}" matches no weight: expected something like ${names[1]}`)
}

function calibrationProblems(
  config: LlamaConfig,
  { calibration: { windows, length } }: Recipe,
  { calibrationIds, hasBackend = true }: PreflightOptions,
): string[] {
  const problems: string[] = []
  if (!hasBackend) problems.push('The recipe needs calibration, so expected a backend to run the model on')
  if (length > config.maxPositionEmbeddings) {
    problems.push(
      `Expected calibration.length of at most ${config.maxPositionEmbeddings} (max_position_embeddings) but received ${length}`,
    )
  }
  if (!calibrationIds) {
    return [...problems, `The recipe needs calibration data: expected at least ${windows * length} tokens`]
  }
  if (calibrationIds.length < windows * length) {
    problems.push(
      `Expected at least ${windows * length} calibration tokens (${windows} windows of ${length}) but received ${calibrationIds.length}`,
    )
  }
  const foreign = calibrationIds.findIndex((id) => id < 0 || id >= config.vocabSize)
  if (foreign >= 0) {
    problems.push(
      `Expected calibration tokens below the vocabulary of ${config.vocabSize} but token ${foreign} is ${calibrationIds[foreign]}`,
    )
  }
  return problems
}

function needsOf(
  config: LlamaConfig,
  { calibration }: Recipe,
  tensors: readonly TensorPlan[],
  calibrated: boolean,
): Preflight['needs'] {
  const layerTensors = tensors.filter(({ name }) => name.startsWith('model.layers.'))
  const valuesOf = ({ shape }: TensorPlan): number => shape.reduce((product, dim) => product * dim, 1)
  const layerValues = sum(layerTensors, valuesOf) / config.numHiddenLayers
  const calibrationTokens = calibrated ? calibration.windows * calibration.length : 0
  const hiddenBytes = 4 * calibrationTokens * config.hiddenSize
  // One window's widest activations: gate and up, their product, q, k and v, and the keys and values that are kept.
  const heads = config.numAttentionHeads + 4 * config.numKeyValueHeads
  const windowWidth = 3 * config.intermediateSize + 4 * config.hiddenSize + heads * config.headDim
  const windowBytes = calibrated ? 4 * calibration.length * windowWidth : 0
  // As loaded, in FP32, and in FP32 again where smoothing made another; or an embedding that is copied.
  const layerBytes = 10 * layerValues
  const largestCopy = Math.max(...tensors.filter((t) => !layerTensors.includes(t)).map((t) => t.bytesBefore))
  return {
    diskBytes: sum(tensors, ({ bytesAfter }) => bytesAfter) + hiddenBytes,
    memoryBytes: hiddenBytes + windowBytes + Math.max(layerBytes, 2 * largestCopy),
    calibrationTokens,
    calibrationFlops: 2 * layerValues * config.numHiddenLayers * calibrationTokens,
    weights: sum(
      tensors.filter(({ choice }) => choice !== 'skip'),
      valuesOf,
    ),
  }
}

/** What the checkpoint can't tell other engines. */
function interopNotes({ smoothing, kv }: Recipe, tensors: readonly TensorPlan[]): string[] {
  const notes: string[] = []
  if (smoothing.postRope && smoothing.postRope.partners === 'own') {
    notes.push('Post-RoPE scales are applied at run time, which other engines do not: "partners": "tied" folds them')
  }
  if (kv.dtype === 'int4') notes.push('The INT4 KV cache is a run-time choice: other engines use their own')
  const misfit = tensors.find(
    ({ choice, shape }) => choice !== 'skip' && (choice.groupSize !== 128 || shape.some((dim) => dim % 128 !== 0)),
  )
  if (misfit) notes.push(`vLLM's W4A8 kernels need groups of 128 and sizes divisible by 128, unlike ${misfit.name}`)
  return notes
}

interface Output {
  readonly problems: string[]
  readonly notes: string[]
  readonly freeBytes: number
  /** What an unfinished run has already. */
  readonly writtenBytes: number
}

async function lookAtOutput(out: string, overwrite: boolean): Promise<Output> {
  const problems: string[] = []
  const notes: string[] = []
  const content = await readdir(out).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOTDIR') problems.push(`${out} is a file: expected a directory to be made`)
    return []
  })
  if (content.length > 0 && !overwrite) problems.push(`${out} exists, and overwriting was not asked for`)
  const unfinished = join(`${out}.partial`, 'model')
  const written = await Promise.all(
    (await readdir(unfinished).catch(() => [])).map(async (name) => (await stat(join(unfinished, name))).size),
  )
  if (written.length > 0) {
    notes.push(
      `${out}.partial holds ${written.length} files of an unfinished run: the same source and recipe go on from it`,
    )
  }
  let existing = dirname(out)
  while ((await stat(existing).catch(() => undefined)) === undefined) existing = dirname(existing)
  const { bavail, bsize } = await statfs(existing)
  return { problems, notes, freeBytes: bavail * bsize, writtenBytes: written.reduce((a, b) => a + b, 0) }
}

function sum<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((total, item) => total + value(item), 0)
}
