import { openModel } from '@fireq/formats'
import { type Comparison, type Evaluation, evaluate, LanguageModel, tokenWindows } from '@fireq/model'
import { openBackend } from '../backend.js'
import type { Framing } from '../data/framing.js'
import { loadTokens, type TokenData } from '../data/load-tokens.js'
import { UsageError } from '../errors.js'
import { type BackendOptions, type GlobalOptions, kvName, type PlanOptions, planOverrides } from '../options.js'
import { createProgress } from '../terminal/progress.js'
import { version } from '../version.js'
import { watchTokens } from './watch.js'

export interface EvalOptions extends BackendOptions, PlanOptions, GlobalOptions {
  readonly data: string
  readonly baseline?: string
  readonly window?: number
  readonly maxWindows?: number
  readonly framing?: Framing
  readonly json?: boolean
}

/** What `fireq eval --json` prints. */
export interface EvalResult {
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

export async function runEval(dir: string, options: EvalOptions, signal: AbortSignal): Promise<EvalResult> {
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
