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
  /** Windows to evaluate, from the beginning; if left out, as many as leave tokens to calibrate on. */
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
  const { window, calibration, calibrationData } = request
  if (window > config.maxPositionEmbeddings) {
    throw new Error(
      `Expected windows of at most ${config.maxPositionEmbeddings} tokens, the context, but received ${window}`,
    )
  }
  const dataPath = request.data ?? join(modelDir, 'samples.bin')
  if (request.data === undefined && !existsSync(dataPath)) {
    throw new Error(`${modelDir} has no samples.bin to evaluate on: name a text or token file with --data`)
  }
  const ids = await readIds(dataPath, modelDir, config)
  const wanted = calibration.windows * calibration.length
  const available = Math.floor(ids.length / window)
  const count = request.windows ?? (calibrationData ? available : Math.floor((ids.length - wanted) / window))
  if (available === 0 || count > available) {
    const asked = count > available ? `${count} were asked for` : 'there is none'
    throw new Error(`Expected at most ${available} windows of ${window} tokens of ${dataPath} but ${asked}`)
  }
  const rest = calibrationData === undefined
  const others = rest
    ? ids.slice(Math.max(count, 1) * window)
    : await readCalibration(calibrationData, dataPath, modelDir, config)
  requireTokens(others.length, wanted, rest ? `${dataPath}, behind what is evaluated,` : calibrationData)
  const source = rest
    ? `the last ${wanted} tokens of the same file, none of which is evaluated`
    : basename(calibrationData)
  return {
    windows: tokenWindows(ids, window).slice(0, count),
    // The file's end: as far from the evaluated tokens as it gets.
    calibrationIds: rest ? others.slice(others.length - wanted) : others,
    description: `Evaluated on the first ${count} of ${available} windows of ${window} tokens of ${basename(dataPath)}; calibrated on ${calibration.windows} windows of ${calibration.length} tokens drawn from ${source}.`,
  }
}

async function readCalibration(
  path: string,
  dataPath: string,
  modelDir: string,
  config: LlamaConfig,
): Promise<Int32Array> {
  if (resolve(path) === resolve(dataPath)) {
    throw new Error(`Expected other data for --calibration-data than for --data but received ${path} twice`)
  }
  return await readIds(path, modelDir, config)
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
