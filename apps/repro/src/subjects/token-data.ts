import { existsSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import type { LlamaConfig } from '@fireq/formats'
import { loadTokenizer, tokenWindows } from '@fireq/model'
import { type CalibrationSize, readTextFile, readTokenFile } from './tokens.js'

/** Tokens to evaluate on, and others to calibrate on. */
export interface TokenData {
  readonly windows: readonly Int32Array[]
  readonly calibrationIds: Int32Array
  /** Where both come from, for people. */
  readonly description: string
}

export interface TokenRequest {
  readonly data?: string
  readonly calibrationData?: string
  /** Windows to evaluate, from the beginning; all there are if left out. */
  readonly windows?: number
  /** Tokens a window. */
  readonly window: number
  readonly calibration: CalibrationSize
}

/**
 * Loads tokens for a model. Without `data` they are the model's own samples, `samples.bin`. Calibration tokens come from
 * `calibrationData`, or from what the evaluated windows leave of the data: never from tokens that are evaluated.
 */
export async function loadTokens(modelDir: string, config: LlamaConfig, request: TokenRequest): Promise<TokenData> {
  const { window, calibration } = request
  if (window > config.maxPositionEmbeddings) {
    throw new Error(
      `Expected windows of at most ${config.maxPositionEmbeddings} tokens, the context, but received ${window}`,
    )
  }
  const dataPath = request.data ?? join(modelDir, 'samples.bin')
  if (!existsSync(dataPath)) {
    throw new Error(
      request.data === undefined
        ? `${modelDir} has no samples.bin to evaluate on: name a text or token file with --data`
        : `There is no file ${dataPath}`,
    )
  }
  const ids = await readIds(dataPath, modelDir, config)
  const all = tokenWindows(ids, window)
  const count = request.windows ?? all.length
  if (count > all.length) {
    throw new Error(
      `Expected at most ${all.length} windows of ${window} tokens in ${dataPath} but ${count} were asked for`,
    )
  }
  const windows = all.slice(0, count)
  const evaluated = `the first ${count} of ${all.length} windows of ${window} tokens of ${name(dataPath)}`
  const wanted = calibration.windows * calibration.length
  if (request.calibrationData !== undefined) {
    const calibrationIds = await readIds(request.calibrationData, modelDir, config)
    if (resolve(request.calibrationData) === resolve(dataPath)) {
      throw new Error(`Expected other data for --calibration-data than for --data but received ${dataPath} twice`)
    }
    requireTokens(calibrationIds.length, wanted, request.calibrationData)
    const from = `${calibration.windows} windows of ${calibration.length} tokens drawn from ${name(request.calibrationData)}`
    return { windows, calibrationIds, description: `Evaluated on ${evaluated}; calibrated on ${from}.` }
  }
  // The file's end: as far from the evaluated tokens as it gets.
  requireTokens(ids.length - count * window, wanted, `${dataPath} behind the evaluated windows`)
  const calibrationIds = ids.slice(ids.length - wanted)
  const from = `the last ${wanted} tokens of the same file (${calibration.windows} windows of ${calibration.length}), none of which is evaluated`
  return { windows, calibrationIds, description: `Evaluated on ${evaluated}; calibrated on ${from}.` }
}

async function readIds(path: string, modelDir: string, { vocabSize }: LlamaConfig): Promise<Int32Array> {
  const ids = path.endsWith('.bin')
    ? await readTokenFile(path)
    : await readTextFile(path, await loadTokenizer(modelDir))
  const foreign = ids.findIndex((id) => id >= vocabSize)
  if (foreign >= 0) {
    throw new Error(`Expected token ids below ${vocabSize} in ${path} but token ${foreign} is ${ids[foreign]}`)
  }
  return ids
}

function requireTokens(available: number, wanted: number, where: string): void {
  if (available >= wanted) return
  throw new Error(
    `Expected at least ${wanted} tokens to calibrate on in ${where} but there are ${Math.max(available, 0)}: ` +
      'evaluate fewer --windows, or name another file with --calibration-data',
  )
}

function name(path: string): string {
  return basename(path)
}
