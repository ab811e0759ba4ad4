import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { fireq, hasControls, isOneLineError, standin, temporaryFolder } from './support.js'

interface Golden {
  readonly prompts: readonly { text: string; ids: number[]; token_logprobs: (number | null)[] }[]
}

interface Result {
  readonly fireq: string
  readonly date: string
  readonly backend: { readonly name: string }
  readonly data: Record<string, unknown>
  readonly plan: Record<string, unknown>
  readonly window: number
  readonly result: {
    windows: number
    tokens: number
    perplexity: number
    klDivergence?: number
    top1Agreement?: number
  }
}

const golden = JSON.parse(readFileSync(join(standin, 'golden.json'), 'utf8')) as Golden
const { text, ids, token_logprobs } = golden.prompts[1]!
const logProbs = token_logprobs.slice(1) as number[]
/** What another implementation computed in float32. */
const expected = Math.exp(-logProbs.reduce((a, b) => a + b) / logProbs.length)

const folder = temporaryFolder()
const write = (name: string, data: string | Uint8Array): string => {
  writeFileSync(join(folder, name), data)
  return join(folder, name)
}
const textFile = write('prompt.txt', text)
const tokenFile = write('prompt.bin', new Uint8Array(Uint16Array.from([...ids, ...ids]).buffer))
const window = ['--window', String(ids.length)]

async function json(args: readonly string[]): Promise<Result> {
  const { code, stdout, stderr } = await fireq(['eval', standin, ...window, '--json', ...args])
  expect(code, stderr).toBe(0)
  expect(hasControls(stdout + stderr)).toBe(false)
  return JSON.parse(stdout) as Result
}

describe('eval', () => {
  it("gives another implementation's perplexity of a text", async () => {
    const { result, data, plan, ...about } = await json(['--data', textFile, '--compute', 'f32'])
    expect(result).toMatchObject({ windows: 1, tokens: ids.length - 1 })
    expect(result.perplexity / expected).toBeCloseTo(1, 4)
    expect(data).toMatchObject({ file: textFile, framing: 'file', addedBos: true, tokens: ids.length })
    expect(plan).toMatchObject({ compute: 'f32', activations: 'none', kv: 'f32' })
    expect(about.fireq).toBe('0.1.0')
    expect(Date.now() - Date.parse(about.date)).toBeLessThan(60_000)
    expect(['reference', 'cpu']).toContain(about.backend.name)
  })

  it('gives the same of tokens, and no distance of a model from itself', async () => {
    const { result, data } = await json(['--data', tokenFile, '--compute', 'f32', '--baseline', standin])
    expect(result).toMatchObject({ windows: 2, top1Agreement: 1 })
    expect(result.perplexity / expected).toBeCloseTo(1, 4)
    expect(Math.abs(result.klDivergence!)).toBeLessThan(1e-9)
    expect(data).not.toHaveProperty('framing')
  })

  it('runs a model in other types on request, and tells how far that is from the unquantized', async () => {
    const types = ['--compute', 'f32', '--kv', 'int4-e4m3', '--queries', 'e4m3', '--probabilities', 'e4m3']
    const args = ['--data', tokenFile, '--max-windows', '1', '--baseline', standin, ...types]
    const { result, plan } = await json(args)
    expect(plan).toMatchObject({ kv: 'int4-e4m3', queries: 'e4m3', probabilities: 'e4m3' })
    expect(result.windows).toBe(1)
    expect(result.klDivergence).toBeGreaterThan(1e-4)
    expect(result.klDivergence).toBeLessThan(1)
  })

  it('prints a report for people, progress on stderr in plain lines', async () => {
    const { code, stdout, stderr } = await fireq([
      'eval',
      standin,
      ...window,
      '--data',
      tokenFile,
      '--baseline',
      standin,
    ])
    expect(code).toBe(0)
    expect(stdout).toMatch(/^perplexity +\d/m)
    expect(stdout).toMatch(/^KL divergence +0 nats/m)
    expect(stdout).toMatch(/^top-1 agreement +100\.00 %$/m)
    expect(stdout).toContain(`2 windows of ${ids.length}`)
    expect(stderr).toContain('window 2 of 2')
    expect(hasControls(stdout + stderr)).toBe(false)
  })
})

describe('eval refuses', () => {
  const dirWith = (name: string, change: (config: Record<string, unknown>) => void): string => {
    const dir = join(folder, name)
    cpSync(standin, dir, { recursive: true })
    const config = JSON.parse(readFileSync(join(dir, 'config.json'), 'utf8')) as Record<string, unknown>
    change(config)
    writeFileSync(join(dir, 'config.json'), JSON.stringify(config))
    return dir
  }

  it.each<[string, number, RegExp, () => string[]]>([
    ['data that is not there', 1, /none\.txt: no such file/, () => ['--data', join(folder, 'none.txt')]],
    ['a directory as data', 1, /Expected a file of text or tokens/, () => ['--data', folder]],
    ['empty data', 1, /the file is empty/, () => ['--data', write('empty.txt', '')]],
    [
      'text in another encoding',
      1,
      /Expected text in UTF-8/,
      () => ['--data', write('l1.txt', Uint8Array.of(99, 233, 33))],
    ],
    [
      'half a token',
      1,
      /token ids of 16 bits but received 3 bytes/,
      () => ['--data', write('odd.bin', Uint8Array.of(1, 0, 1))],
    ],
    [
      'a foreign token',
      1,
      /below the vocabulary of 4096 but id 1 is 4096/,
      () => ['--data', write('far.bin', Uint8Array.of(0, 0, 0, 16))],
    ],
    ['too little data', 1, /at least 2048 tokens for a window but received 10/, () => ['--data', textFile]],
    ['a window beyond the context', 2, /--window of at most 2048/, () => ['--data', textFile, '--window', '4096']],
    ['a framing of tokens', 2, /--framing is for text/, () => ['--data', tokenFile, '--framing', 'hf']],
    [
      'a baseline that is not there',
      1,
      /none: .*config.json/,
      () => ['--data', textFile, '--baseline', join(folder, 'none')],
    ],
  ])('%s', async (_, code, message, args) => {
    const outcome = await fireq(['eval', standin, '--quiet', '--backend', 'reference', ...args()])
    expect(outcome.stderr).toMatch(message)
    expect(outcome.code).toBe(code)
    expect(isOneLineError(outcome)).toBe(true)
  })

  it('a config that the tensors do not fit', async () => {
    const dir = dirWith('wide', (config) => {
      config.intermediate_size = 641
    })
    const outcome = await fireq(['eval', dir, '--data', textFile])
    expect(outcome.code).toBe(1)
    expect(outcome.stderr).toMatch(/model\.safetensors: Expected the shape \[641,256\] for tensor .*gate_proj/)
    expect(isOneLineError(outcome)).toBe(true)
  })

  it('a model of another family', async () => {
    const dir = dirWith('bert', (config) => {
      config.model_type = 'bert'
    })
    const outcome = await fireq(['eval', dir, '--data', textFile])
    expect(outcome.code).toBe(1)
    expect(outcome.stderr).toMatch(/supported model family \(llama.*but received "bert"/)
    expect(isOneLineError(outcome)).toBe(true)
  })
})
