import { openModel } from '@fireq/formats'
import { type Comparison, type Evaluation, evaluate, LanguageModel, tokenWindows } from '@fireq/model'
import { Command, Option } from 'commander'
import { openBackend } from '../backend.js'
import type { Framing } from '../data/framing.js'
import { loadTokens, type TokenData } from '../data/load-tokens.js'
import { UsageError } from '../errors.js'
import { watchTokens } from '../evaluation/watch.js'
import {
  type BackendOptions,
  type GlobalOptions,
  kvName,
  type PlanOptions,
  planOverrides,
  wholeNumber,
  withBackendOptions,
  withPlanOptions,
} from '../options.js'
import { formatNumber, formatSeconds, formatWhole } from '../terminal/format.js'
import { interruptible } from '../terminal/interrupt.js'
import { print, printJson } from '../terminal/output.js'
import { createProgress } from '../terminal/progress.js'
import { version } from '../version.js'

interface EvalOptions extends BackendOptions, PlanOptions, GlobalOptions {
  readonly data: string
  readonly baseline?: string
  readonly window?: number
  readonly maxWindows?: number
  readonly framing?: Framing
  readonly json?: boolean
}

const HELP = `
Windows are GPTQ's: the text's tokens cut one after another, no overlap, the remainder dropped.

Data: a file ending in .bin holds token ids (16 bits little endian, or 32 where the vocabulary is larger than 65536);
any other is text in UTF-8. Framing "hf" joins lines as papers do with WikiText-2 (the default for files ending in .raw);
"file" takes the text as it is (the default for others). Perplexities of different framings can't be compared.

Examples:
  $ fireq eval Llama-3.2-1B --data wiki.test.raw
  $ fireq eval 1B-fireq --baseline Llama-3.2-1B --data wiki.test.raw --max-windows 10
  $ fireq eval 1B-fireq --data wiki.test.raw --queries none --kv bf16 --json`

export function evalCommand(): Command {
  const command = new Command('eval')
    .summary('perplexity, and KL divergence from the unquantized model')
    .description('Measure how well a model predicts a text, and how far it is from the unquantized one.')
    .argument('<dir>', 'model directory, quantized or not')
    .requiredOption('--data <file>', 'text or tokens to predict')
    .option('--baseline <dir>', 'unquantized model: adds KL divergence and top-1 agreement')
    .option('--window <tokens>', 'tokens a window (default: 2048, or the context if that is less)', wholeNumber(2))
    .option('--max-windows <n>', 'only the first windows', wholeNumber(1))
    .addOption(new Option('--framing <kind>', 'how lines become one text').choices(['hf', 'file']))
  withPlanOptions(withBackendOptions(command))
  return command
    .option('--json', 'the result as JSON')
    .addHelpText('after', HELP)
    .action(async (dir: string) => {
      const options = command.optsWithGlobals<EvalOptions>()
      const result = await interruptible((signal) => runEval(dir, options, signal))
      if (options.json) printJson(result)
      else print(formatResult(result))
    })
}

interface EvalResult {
  readonly fireq: string
  readonly date: string
  readonly backend: { readonly name: string; readonly description: string }
  readonly model: string
  readonly baseline?: string
  readonly plan: Readonly<Record<string, unknown>>
  readonly data: Omit<TokenData, 'ids'> & { readonly tokens: number }
  readonly window: number
  readonly result: Evaluation | Comparison
  readonly seconds: number
}

async function runEval(dir: string, options: EvalOptions, signal: AbortSignal): Promise<EvalResult> {
  const { quiet } = options
  await using source = await openModel(dir)
  await using baselineSource = options.baseline === undefined ? undefined : await openModel(options.baseline)
  const { maxPositionEmbeddings, vocabSize } = source.config
  const window = options.window ?? Math.min(2048, maxPositionEmbeddings)
  if (window > maxPositionEmbeddings) {
    throw new UsageError(
      `Expected --window of at most ${maxPositionEmbeddings}, the model's context, but received ${window}`,
    )
  }
  const data = await loadTokens(options.data, { dir, vocabSize }, options.framing)
  const windows = tokenWindows(data.ids, window).slice(0, options.maxWindows)

  using backend = openBackend(options)
  const plan = planOverrides(options)
  const load = { kvTokens: window, signal }
  const began = performance.now()
  using model = await LanguageModel.load(source, backend, { plan, ...load })
  const { compute } = model.plan
  using baseline = baselineSource && (await LanguageModel.load(baselineSource, backend, { plan: { compute }, ...load }))

  const progress = createProgress({ quiet })
  const total = windows.length * (window - 1)
  const watched = watchTokens(model, (done) => {
    progress.update(done / total, `window ${Math.ceil(done / (window - 1))} of ${windows.length}`)
  })
  try {
    const result = await (baseline
      ? evaluate(watched, windows, { baseline, signal })
      : evaluate(watched, windows, { signal }))
    const { ids, ...about } = data
    return {
      fireq: version,
      date: new Date().toISOString(),
      backend: { name: backend.name, description: backend.description },
      model: dir,
      ...(options.baseline !== undefined && { baseline: options.baseline }),
      plan: describePlan(model),
      data: { ...about, tokens: ids.length },
      window,
      result,
      seconds: (performance.now() - began) / 1000,
    }
  } finally {
    progress.stop()
  }
}

function describePlan({ plan }: LanguageModel): Record<string, unknown> {
  const { compute, activations, queries, probabilities, kv, keyScale } = plan
  return { compute, activations, queries, probabilities, kv: kvName(kv), keyScale: keyScale !== undefined }
}

function formatResult({ result, data, window, plan, seconds, backend }: EvalResult): string {
  const { compute, activations, queries, probabilities, kv } = plan
  const framing = data.framing === undefined ? 'tokens' : `framing ${data.framing}`
  const lines: [string, string][] = [['perplexity', formatNumber(result.perplexity, 6)]]
  if ('klDivergence' in result) {
    lines.push(['of the baseline', formatNumber(result.baselinePerplexity, 6)])
    lines.push(['KL divergence', `${formatNumber(result.klDivergence, 4)} nats per token`])
    lines.push(['top-1 agreement', `${(100 * result.top1Agreement).toFixed(2)} %`])
  }
  lines.push(['over', `${result.windows} windows of ${window}, ${formatWhole(result.tokens)} predicted tokens`])
  lines.push(['data', `${data.file}, ${framing}, ${formatWhole(data.tokens)} tokens`])
  lines.push([
    'run as',
    `compute ${compute}, activations ${activations}, queries ${queries}, probabilities ${probabilities}, kv ${kv}`,
  ])
  lines.push(['time', `${formatSeconds(seconds)} on ${backend.name}`])
  return lines.map(([name, value]) => `${name.padEnd(16)} ${value}`).join('\n')
}
