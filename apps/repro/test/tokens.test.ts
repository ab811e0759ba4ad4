import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type LlamaConfig, openModel } from '@fireq/formats'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadTokens } from '../src/subjects/token-data.js'
import { joinAsHuggingFace, readTokenFile } from '../src/subjects/tokens.js'
import { standinDir } from './support.js'

let folder: string
let config: LlamaConfig
const calibration = { windows: 2, length: 32 }

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fireq-tokens-'))
  await using source = await openModel(standinDir)
  config = source.config
})

afterAll(() => rm(folder, { recursive: true, force: true }))

describe('tokens', () => {
  it("are the stand-in's samples, and calibration takes others", async () => {
    const ids = await readTokenFile(join(standinDir, 'samples.bin'))
    expect(ids.length).toBe(64 * 1024)
    expect(Array.from({ length: 64 }, (_, row) => ids[row * 1024])).toEqual(new Array(64).fill(config.bosTokenId))
    const { windows, calibrationIds, description } = await loadTokens(standinDir, config, {
      windows: 3,
      window: 1024,
      calibration,
    })
    expect(windows).toEqual([ids.slice(0, 1024), ids.slice(1024, 2048), ids.slice(2048, 3072)])
    expect(calibrationIds).toEqual(ids.slice(-64))
    expect(description).toContain('the first 3 of 64 windows of 1024 tokens of samples.bin')
    expect(description).toContain('the last 64 tokens of the same file, none of which is evaluated')
  })

  it('leave enough to calibrate on where no number of windows is given', async () => {
    const { windows } = await loadTokens(standinDir, config, {
      window: 1024,
      calibration: { windows: 10, length: 1024 },
    })
    expect(windows.length).toBe(54)
  })

  it('are refused where calibration would see what is evaluated', async () => {
    await expect(loadTokens(standinDir, config, { windows: 64, window: 1024, calibration })).rejects.toThrow(
      /at least 64 tokens to calibrate on in .*samples\.bin, behind what is evaluated, but there are 0/,
    )
    const data = join(standinDir, 'samples.bin')
    await expect(
      loadTokens(standinDir, config, { data, calibrationData: data, window: 64, calibration }),
    ).rejects.toThrow('Expected other data for --calibration-data')
  })

  it('are refused where they are too few, too many for the context, or not the model’s', async () => {
    await expect(loadTokens(standinDir, config, { windows: 65, window: 1024, calibration })).rejects.toThrow(
      /at most 64 windows of 1024 tokens .* 65 were asked for/,
    )
    await expect(loadTokens(standinDir, config, { window: 4096, calibration })).rejects.toThrow(
      'Expected windows of at most 2048 tokens, the context, but received 4096',
    )
    const foreign = join(folder, 'foreign.bin')
    await writeFile(foreign, Uint16Array.of(1, 2, 5000, 4))
    await expect(loadTokens(standinDir, config, { data: foreign, window: 2, calibration })).rejects.toThrow(
      /Expected token ids below 4096 in .*foreign\.bin but token 2 is 5000/,
    )
    await writeFile(foreign, Uint8Array.of(1, 2, 3))
    await expect(loadTokens(standinDir, config, { data: foreign, window: 2, calibration })).rejects.toThrow('3 bytes')
  })

  it('come from a text through the tokenizer, with BOS', async () => {
    const text = join(folder, 'text.txt')
    await writeFile(text, 'It was a dark and stormy night. '.repeat(100))
    const { windows } = await loadTokens(standinDir, config, { data: text, windows: 1, window: 32, calibration })
    expect(windows[0][0]).toBe(config.bosTokenId)
  })

  it('of WikiText are framed as rows joined by blank lines', () => {
    // Rows as Hugging Face has them: '', ' = A = \n', '', ' text \n'.
    expect(joinAsHuggingFace(' \n = A = \n \n text \n')).toBe(['', ' = A = \n', '', ' text \n'].join('\n\n'))
  })
})
