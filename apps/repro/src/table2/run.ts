import { join } from 'node:path'
import { type ModelSource, openModel } from '@fireq/formats'
import type { Lab } from '../experiment.js'
import { writeModelWithOutliers } from '../outliers/inject-model.js'
import { defaultOutliers } from '../outliers/outliers.js'
import { type SameFunction, verifySameFunction } from '../outliers/verify.js'
import { hashOf, modelIdentity } from '../pipeline/identity.js'
import type { Report } from '../report/report.js'
import { standinDir } from '../subjects/standin.js'
import { loadTokens, type TokenData } from '../subjects/token-data.js'
import { Measurer, STEPS_PER_ROW } from './measure.js'
import { table2Report } from './report.js'
import type { RowResult, SubjectResult } from './result.js'
import { table2Rows } from './rows.js'
import type { Table2Settings } from './settings.js'

/** Tokens on which the injected outliers are shown to change nothing. */
const VERIFIED_TOKENS = 64

export async function runTable2(lab: Lab, settings: Table2Settings): Promise<Report> {
  const modelDir = settings.model ?? standinDir()
  await using source = await openModel(modelDir)
  if (source.quantization) throw new Error(`${modelDir} is quantized already: expected an unquantized model`)
  const calibration = { windows: settings.calibrationWindows, length: settings.window }
  const data = await loadTokens(modelDir, source.config, { ...settings, calibration })
  const rows = table2Rows(calibration)
  const [plain, injected] = [settings.outliers !== 'on', settings.outliers !== 'off']
  lab.progress.expect((Number(plain) + Number(injected)) * rows.length * STEPS_PER_ROW + Number(injected))

  const measureAll = async (measured: ModelSource, name: string): Promise<RowResult[]> => {
    using measurer = new Measurer(lab, measured, data, settings.compute, settings.observedTokens)
    const results: RowResult[] = []
    for (const row of rows) results.push(await measurer.measure(row, name))
    return results
  }
  const name = settings.model === undefined ? 'the stand-in' : modelDir
  const subjects: SubjectResult[] = []
  if (plain) subjects.push({ id: 'plain', title: `On ${name}`, rows: await measureAll(source, 'as it is') })
  if (injected) {
    lab.progress.begin('inject outliers')
    await using changed = await injectOutliers(source, lab)
    const outliers = await verify(source, changed, data, lab)
    const title = `On ${name} with injected outliers`
    subjects.push({ id: 'outliers', title, outliers, rows: await measureAll(changed, 'with outliers') })
  }
  return table2Report({ settings, source, data, subjects })
}

/** The same model with outliers in its activations, written to the cache. */
async function injectOutliers(source: ModelSource, { cacheDir, signal }: Lab): Promise<ModelSource> {
  const key = hashOf(await modelIdentity(source.dir), JSON.stringify(defaultOutliers))
  const dir = join(cacheDir, 'outliers', key)
  await writeModelWithOutliers(source, defaultOutliers, dir, signal)
  return await openModel(dir)
}

async function verify(
  source: ModelSource,
  changed: ModelSource,
  { windows }: TokenData,
  { backend, signal, progress }: Lab,
): Promise<SubjectResult['outliers']> {
  const same: SameFunction = await verifySameFunction(source, changed, backend, windows[0].slice(0, VERIFIED_TOKENS), {
    signal,
  })
  progress.note(
    `Outliers injected; the unquantized model is unchanged: FP32 logits of ${same.tokens} tokens differ by ${same.relativeDifference.toExponential(1)} (relative, at most ${same.tolerance} is allowed)`,
  )
  return { ...same, settings: defaultOutliers }
}
