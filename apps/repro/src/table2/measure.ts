import type { ModelSource } from '@fireq/formats'
import { LanguageModel, type LlamaPlan, type ScoredModel } from '@fireq/model'
import type { LayerReport } from '@fireq/quantize'
import { keepLogits } from '../evaluation/baseline.js'
import { hiddenErrors, type Observation, observe } from '../evaluation/observe.js'
import { type Score, score } from '../evaluation/score.js'
import { ScoreCache } from '../evaluation/score-cached.js'
import type { Lab } from '../experiment.js'
import { hashOf, modelIdentity } from '../pipeline/identity.js'
import { quantizeCached } from '../pipeline/quantize-cached.js'
import type { TokenData } from '../subjects/token-data.js'
import { bitsPerWeight, kvBits } from './bits.js'
import type { RowResult } from './result.js'
import type { Table2Row } from './rows.js'

/** How queries and probabilities are run. */
const RUNS = {
  off: { queries: 'none', probabilities: 'f32' },
  on: { queries: 'e4m3', probabilities: 'e4m3' },
} as const satisfies Record<string, Partial<LlamaPlan>>

/** Steps of progress that a row takes. */
export const STEPS_PER_ROW = 4

/** Runs rows on one model. The unquantized model is loaded when it is first needed, and compared to from then on. */
export class Measurer implements Disposable {
  readonly #lab: Lab
  readonly #source: ModelSource
  readonly #data: TokenData
  readonly #compute: LlamaPlan['compute']
  readonly #observed: Int32Array
  readonly #scores: ScoreCache
  #baseline: { readonly model: LanguageModel; readonly scored: ScoredModel } | undefined
  #original: Observation | undefined

  constructor(lab: Lab, source: ModelSource, data: TokenData, compute: LlamaPlan['compute'], observedTokens: number) {
    this.#lab = lab
    this.#source = source
    this.#data = data
    this.#compute = compute
    this.#observed = data.windows[0].slice(0, observedTokens)
    this.#scores = new ScoreCache(lab.cacheDir)
  }

  /** @param subject names the model in progress lines */
  async measure(row: Table2Row, subject: string): Promise<RowResult> {
    const { progress, backend, signal } = this.#lab
    const begin = (what: string): void => progress.begin(`${subject} · ${row.label} · ${what}`)
    const { recipe, ...description } = row

    begin(recipe ? 'quantize' : 'open')
    const source = recipe
      ? await quantizeCached(this.#source, recipe, this.#data.calibrationIds, this.#lab)
      : this.#source
    try {
      begin('evaluate, Q and P in BF16')
      const off = await this.#score(source, 'off')
      begin('evaluate, Q and P in FP8')
      const on = await this.#score(source, 'on')
      begin('look at the layers')
      const observation = await observe(source, backend, this.#observed, signal)
      this.#original ??= observation // the first row is the model as it is
      return {
        ...description,
        off,
        on,
        kvBits: kvBits(source),
        maxima: observation.maxima,
        ...(recipe && {
          recipe,
          bitsPerWeight: bitsPerWeight(source.config, recipe),
          weightErrors: weightErrors(source),
          folds: layerReports(source).map(({ folds }) => folds),
          hiddenErrors: hiddenErrors(observation, this.#original),
        }),
      }
    } finally {
      if (source !== this.#source) await source.close()
    }
  }

  async #score(source: ModelSource, run: keyof typeof RUNS): Promise<Score> {
    const { backend, signal, progress } = this.#lab
    const options = { signal, onProgress: (part: number) => progress.within(part) }
    const { windows } = this.#data
    const plan = { compute: this.#compute, ...RUNS[run] }
    const identities = await Promise.all([source.dir, this.#source.dir].map(modelIdentity))
    const inputs = [...identities, JSON.stringify(plan), hashOf(...windows), backend.name]
    return await this.#scores.get(inputs, async () => {
      if (source === this.#source && run === 'off')
        return await score(await this.#scoredBaseline(), undefined, windows, options)
      using model = await LanguageModel.load(source, backend, { plan, signal })
      return await score(model, await this.#scoredBaseline(), windows, options)
    })
  }

  async #scoredBaseline(): Promise<ScoredModel> {
    if (!this.#baseline) {
      const { backend, signal } = this.#lab
      const model = await LanguageModel.load(this.#source, backend, { plan: { compute: this.#compute }, signal })
      this.#baseline = { model, scored: keepLogits(model, this.#data.windows) }
    }
    return this.#baseline.scored
  }

  [Symbol.dispose](): void {
    this.#baseline?.model.dispose()
  }
}

/** What the pipeline wrote down when it rounded the layers. */
function layerReports({ quantization }: ModelSource): readonly LayerReport[] {
  return quantization!.provenance!.layers as readonly LayerReport[]
}

/** Root mean square over each layer's matrices. */
function weightErrors(source: ModelSource): number[] {
  return layerReports(source).map(({ weightErrors: byTensor }) => {
    const errors = Object.values(byTensor).map(({ relative }) => relative)
    return Math.sqrt(errors.reduce((sum, error) => sum + error * error, 0) / errors.length)
  })
}
