import { openModel } from '@fireq/formats'
import {
  type LayerReport,
  type Preflight,
  preflight,
  printPreflight,
  type QuantizeProgress,
  quantizeModel,
  recipeNames,
} from '@fireq/quantize'
import { Command } from 'commander'
import { openBackend } from '../backend.js'
import type { TokenData } from '../data/load-tokens.js'
import { type BackendOptions, type GlobalOptions, withBackendOptions } from '../options.js'
import { calibrationData } from '../quantize/calibration-data.js'
import { parseSetting, recipeOf, type Setting } from '../quantize/recipe.js'
import { formatBytes, formatSeconds } from '../terminal/format.js'
import { interruptible } from '../terminal/interrupt.js'
import { note, print, printJson } from '../terminal/output.js'
import { createProgress } from '../terminal/progress.js'
import { version } from '../version.js'

interface Options extends BackendOptions, GlobalOptions {
  readonly out: string
  readonly recipe: string
  readonly set?: readonly Setting[]
  readonly calibrationData?: string
  readonly dryRun?: boolean
  readonly overwrite?: boolean
  readonly json?: boolean
}

const HELP = `
Recipes: ${recipeNames.join(', ')}, or a JSON file. --set changes a field of one; the value is JSON or text.

A recipe that looks at activations (fireq does) runs the model on calibration text, in windows as the recipe says. Without
--calibration-data it is read from calibration.txt, calibration.bin or samples.bin in the model directory, and said so;
where there is none, nothing is done. Files ending in .bin hold token ids, as for fireq eval.

The output appears when it is complete. Until then it grows in <out>.partial: after Ctrl-C, kill -9 or a power cut the same
command goes on from there, and the result is the same to the bit.

Examples:
  $ fireq quantize Llama-3.2-1B --out 1B-rtn --recipe rtn
  $ fireq quantize Llama-3.2-1B --out 1B-fireq --calibration-data text.txt --dry-run
  $ fireq quantize Llama-3.2-1B --out 1B-fireq --calibration-data text.txt
  $ fireq quantize Llama-3.2-1B --out 1B-64 --recipe rtn --set weights.groupSize=64 activations=none
  $ fireq quantize Llama-3.2-1B --out 1B-down --recipe rtn --set 'overrides=[{"match":"**.down_proj.weight","skip":true}]'`

export function quantizeCommand(): Command {
  const command = new Command('quantize')
    .summary('turn a Hugging Face model into a quantized one')
    .description('Quantize a Llama directory from Hugging Face, layer by layer, in bounded memory.')
    .argument('<hf-dir>', 'model directory: config.json, *.safetensors, tokenizer')
    .requiredOption('--out <dir>', 'directory to write')
    .option('--recipe <name|file>', 'how to quantize', 'fireq')
    .option('--set <key=value...>', 'change a field of the recipe', parseSetting)
    .option('--calibration-data <file>', 'text or tokens to calibrate on')
  withBackendOptions(command)
  return command
    .option('--dry-run', 'say what would be done and what is wrong, and do nothing')
    .option('--overwrite', 'replace a model at --out, or an unfinished other one')
    .option('--json', 'the result as JSON')
    .addHelpText('after', HELP)
    .action(async (dir: string) => {
      const options = command.optsWithGlobals<Options>()
      let begun = false
      const resume = () =>
        begun ? `what is done is kept in ${options.out}.partial; the same command resumes` : undefined
      const begin = () => {
        begun = true
      }
      await interruptible((signal) => quantize(dir, options, signal, begin), resume)
    })
}

async function quantize(dir: string, options: Options, signal: AbortSignal, begin: () => void): Promise<void> {
  const { out, quiet, json, overwrite } = options
  await using source = await openModel(dir)
  const recipe = await recipeOf(options.recipe, options.set ?? [])
  const { vocabSize } = source.config
  const needed = (await preflight(source, recipe, out, { overwrite })).needs.calibrationTokens > 0
  const data = needed ? await calibrationData(options.calibrationData, recipe, { dir, vocabSize }) : undefined
  const calibrationIds = data?.ids
  const plan = await preflight(source, recipe, out, { calibrationIds, overwrite })
  describe(dir, plan, data, options)
  const problems = plan.problems.map((problem) => (needed && !data ? withCalibrationHint(problem) : problem))
  if (problems.length > 0) throw new Error(problems.join('\n'))
  if (options.dryRun) return

  const backend = needed ? openBackend(options) : undefined
  try {
    const progress = createProgress({ quiet })
    const began = performance.now()
    const onProgress = (at: QuantizeProgress) => {
      begin()
      progress.update(at.fraction, labelOf(at), at.secondsLeft)
    }
    let layers: readonly LayerReport[]
    try {
      ;({ layers } = await quantizeModel(source, recipe, out, {
        backend,
        calibrationIds,
        overwrite,
        signal,
        onProgress,
      }))
    } finally {
      progress.stop()
    }
    const seconds = (performance.now() - began) / 1000
    if (json)
      printJson({
        fireq: version,
        date: new Date().toISOString(),
        source: dir,
        out,
        recipe,
        ...sizes(plan),
        seconds,
        layers,
      })
    else print(summary(out, plan, layers, seconds))
  } finally {
    backend?.dispose()
  }
}

/** The plan: a result of a dry run, else a note. */
function describe(dir: string, plan: Preflight, data: TokenData | undefined, options: Options): void {
  const { dryRun, json, out, recipe } = options
  const from = data && `calibration text from ${data.file}, ${data.ids.length} tokens`
  if (dryRun && json) {
    const { tensors, ...rest } = plan
    printJson({
      source: dir,
      out,
      ...rest,
      ...(data && { calibrationData: { file: data.file, sha256: data.sha256 } }),
      tensors,
    })
    return
  }
  const text = [`${dir} → ${out}, recipe ${recipe}`, printPreflight(plan, { tensors: dryRun }), ...(from ? [from] : [])]
  if (dryRun) print(text.join('\n'))
  else if (plan.problems.length === 0) note(text.join('\n'), options)
}

function withCalibrationHint(problem: string): string {
  return /calibration data/.test(problem) ? `${problem}; give text with --calibration-data <file>` : problem
}

function labelOf({ stage, layer, layers, tensor }: QuantizeProgress): string {
  if (layer === undefined) return stage === 'finish' ? 'finishing' : 'copying what stays as it is'
  const what = stage === 'round' && tensor !== undefined ? `round ${tensor.split('.').slice(-2)[0]}` : stage
  return `layer ${layer + 1} of ${layers}: ${what}`
}

function sizes({ sourceBytes, outputBytes, bitsPerWeight }: Preflight) {
  return { sourceBytes, outputBytes, bitsPerWeight }
}

function summary(out: string, plan: Preflight, layers: readonly LayerReport[], seconds: number): string {
  const errors = layers.flatMap(({ weightErrors }) => Object.values(weightErrors).map(({ relative }) => relative))
  const mean = errors.reduce((a, b) => a + b, 0) / errors.length
  return [
    `${out}: ${formatBytes(plan.sourceBytes)} → ${formatBytes(plan.outputBytes)} in ${formatSeconds(seconds)}`,
    `${plan.bitsPerWeight.toFixed(3)} bits per quantized weight, mean relative error ${(100 * mean).toFixed(2)} % (fireq inspect ${out} shows it by layer)`,
  ].join('\n')
}
