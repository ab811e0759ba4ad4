import { type ModelSource, openModel } from '@fireq/formats'
import { preflight, type QuantizeProgress, type QuantizeResult, quantizeModel, type Recipe } from '@fireq/quantize'
import { openBackend } from '../backend.js'
import type { TokenData } from '../data/load-tokens.js'
import { note, print, printJson } from '../terminal/output.js'
import { createProgress } from '../terminal/progress.js'
import { calibrationData } from './calibration-data.js'
import type { QuantizeCommandOptions } from './options.js'
import { recipeOf } from './recipe.js'
import { labelOf, planJson, planText, resultJson, resultText } from './report.js'

/** Quantizes, or with `dryRun` only looks. @param onBegin called once there is something to be resumed */
export async function runQuantize(
  dir: string,
  options: QuantizeCommandOptions,
  signal: AbortSignal,
  onBegin: () => void,
): Promise<void> {
  const { out, overwrite, dryRun, json } = options
  await using source = await openModel(dir)
  const recipe = await recipeOf(options.recipe, options.set ?? [])
  const data = await calibration(source, recipe, options)
  const plan = await preflight(source, recipe, out, { calibrationIds: data?.ids, overwrite })
  if (dryRun) {
    if (json) printJson(planJson(dir, plan, data, options))
    else print(planText(dir, plan, data, options))
  }
  if (plan.problems.length > 0) throw new Error(plan.problems.map(withHint).join('\n'))
  if (dryRun) return

  note(planText(dir, plan, data, options), options)
  const began = performance.now()
  const { layers } = await quantize(source, recipe, data, options, signal, onBegin)
  const run = { dir, out, recipe, plan, layers, seconds: (performance.now() - began) / 1000 }
  if (json) printJson(resultJson(run))
  else print(resultText(run))
}

async function quantize(
  source: ModelSource,
  recipe: Recipe,
  data: TokenData | undefined,
  options: QuantizeCommandOptions,
  signal: AbortSignal,
  onBegin: () => void,
): Promise<QuantizeResult> {
  const { out, overwrite, quiet } = options
  using backend = data && openBackend(options)
  const progress = createProgress({ quiet })
  const onProgress = (at: QuantizeProgress) => {
    onBegin()
    progress.update(at.fraction, labelOf(at), at.secondsLeft)
  }
  try {
    const calibrationIds = data?.ids
    return await quantizeModel(source, recipe, out, { backend, calibrationIds, overwrite, signal, onProgress })
  } finally {
    progress.stop()
  }
}

/** Tokens to calibrate on, where the recipe needs any and there are some. */
async function calibration(
  source: ModelSource,
  recipe: Recipe,
  options: QuantizeCommandOptions,
): Promise<TokenData | undefined> {
  const { needs } = await preflight(source, recipe, options.out)
  if (needs.calibrationTokens > 0) {
    return await calibrationData(options.calibrationData, recipe, {
      dir: source.dir,
      vocabSize: source.config.vocabSize,
    })
  }
  if (options.calibrationData !== undefined) note('--calibration-data is not read: the recipe needs none', options)
  return undefined
}

function withHint(problem: string): string {
  return /needs calibration data/.test(problem) ? `${problem}; give text with --calibration-data <file>` : problem
}
