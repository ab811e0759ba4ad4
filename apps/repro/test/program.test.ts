import { existsSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { binary, repro, standinDir, writeTinyModel } from './support.js'

interface Results {
  readonly experiment: string
  readonly synthetic: boolean
  readonly settings: { readonly model: string; readonly windows: number }
  readonly machine: { readonly cores: number }
  readonly subjects: readonly {
    readonly injectedOutliers: boolean
    readonly rows: readonly {
      readonly id: string
      readonly off: { readonly tokens: number; readonly perplexity: number; readonly kl: { readonly mean: number } }
      readonly on: { readonly kl: { readonly mean: number } }
    }[]
  }[]
}

let folder: string

beforeAll(async () => {
  expect(existsSync(binary), `${binary}: build it first`).toBe(true)
  folder = await mkdtemp(join(tmpdir(), 'fireq-repro-'))
})

afterAll(() => rm(folder, { recursive: true, force: true }))

async function filesOf(out: string): Promise<{ json: Results; html: string; markdown: string }> {
  const names = (await readdir(out)).filter((name) => name !== 'cache').sort()
  const last = (extension: string): Promise<string> =>
    readFile(join(out, names.filter((name) => name.endsWith(extension)).at(-1)!), 'utf8')
  return { json: JSON.parse(await last('.json')), html: await last('.html'), markdown: await last('.md') }
}

describe('table2 on a few tokens of the stand-in', () => {
  const args = ['table2', '--windows', '1', '--window', '24', '--calibration-windows', '1', '--outliers', 'on']

  it('stops at Ctrl-C, goes on afterwards, and writes every row', async () => {
    const out = join(folder, 'standin')
    const interrupted = await repro([...args, '--out', out], '+ tensor scale · evaluate')
    expect(interrupted.stderr).toContain('Interrupted. The same command goes on from what is done.')
    expect(interrupted.code).toBe(130)
    expect(interrupted.stdout).toBe('')
    const kept = await readdir(join(out, 'cache', 'models'))
    expect(kept.some((name) => name.startsWith('rtn-'))).toBe(true)

    const finished = await repro([...args, '--out', out])
    expect(finished.code, finished.stderr).toBe(0)
    expect(finished.stderr).toContain('the unquantized model is unchanged')
    const { json, html, markdown } = await filesOf(out)
    const [{ rows, injectedOutliers }] = json.subjects
    expect(json).toMatchObject({ experiment: 'table2', synthetic: true, settings: { model: 'stand-in', windows: 1 } })
    expect(injectedOutliers).toBe(true)
    expect(rows).toHaveLength(8)
    for (const label of ['BF16', 'RTN', '+ tensor scale', '+ CAS', '+ pre-RoPE', '+ post-RoPE', 'FireQ σFP8']) {
      expect(finished.stdout).toContain(label)
      expect(html).toContain(`<td>${label}</td>`)
      expect(markdown).toContain(`| ${label} |`)
    }
    expect(html).not.toMatch(/https?:/)
    expect(rows[0].off).toMatchObject({ tokens: 23, kl: { mean: 0 } })
    const kl = Object.fromEntries(rows.map(({ id, off }) => [id, off.kl.mean]))
    expect(kl.rtn).toBeGreaterThan(3 * kl['post-rope']) // what smoothing is for
    expect(kl['post-rope']).toBeGreaterThan(0)

    const again = await repro([...args, '--out', out])
    expect(again.code, again.stderr).toBe(0)
    expect((await filesOf(out)).json.subjects).toEqual(json.subjects)
  }, 180_000)
})

describe("table2 on a user's model and text", () => {
  it('calibrates on what it does not evaluate', async () => {
    const [model, data, out] = ['model', 'text.txt', 'own'].map((name) => join(folder, name))
    await writeTinyModel(model)
    await writeFile(data, 'The quick brown fox jumps over the lazy dog. '.repeat(60))
    const sizes = ['--windows', '2', '--window', '16', '--calibration-windows', '2']
    const { code, stdout, stderr } = await repro(['table2', '--model', model, '--data', data, ...sizes, '--out', out])
    expect(code, stderr).toBe(0)
    expect(stdout).toContain('the last 32 tokens of the same file, none of which is evaluated')
    const { json } = await filesOf(out)
    expect(json.synthetic).toBe(false)
    expect(json.subjects.map(({ injectedOutliers }) => injectedOutliers)).toEqual([false])
    expect(json.subjects[0].rows.every(({ on }) => Number.isFinite(on.kl.mean))).toBe(true)
  }, 60_000)
})

describe('the command line', () => {
  it('lists the experiments', async () => {
    const { code, stdout } = await repro(['list'])
    expect(code).toBe(0)
    expect(stdout).toMatch(/^quick +\S.*\ntable2 +\S.*\n$/)
  })

  it.each([
    [['tabel2'], 2, /unknown command 'tabel2'\n\(Did you mean table2\?\)/],
    [['table2', '--windws', '3'], 2, /unknown option '--windws'/],
    [['table2', '--windows', '0'], 2, /argument '0' is invalid\. Expected a whole number of at least 1/],
    [['table2', '--outliers', 'some'], 2, /Allowed choices are off, on, both/],
    [['table2', '--model', '/no/such/model'], 1, /^error: .*\/no\/such\/model/],
    [['table2', '--data', '/no/such/text'], 1, /^error: .*\/no\/such\/text/],
    [['table2', '--window', '4096'], 1, /^error: Expected windows of at most 2048 tokens/],
    [['table2', '--backend', 'cuda'], 1, /^error: /],
  ])('answers %j with one clear error', async (args, expectedCode, message) => {
    const { code, stdout, stderr } = await repro([...args, '--out', join(folder, 'bad')])
    expect(stderr.replace(/^fireq: running on.*\n/, '')).toMatch(message)
    expect(stderr).not.toMatch(/\n {4}at /)
    expect(code).toBe(expectedCode)
    expect(stdout).toBe('')
  })

  it('refuses a model that is quantized already', async () => {
    const dir = join(folder, 'standin', 'cache', 'models')
    const [quantized] = await readdir(dir)
    const data = join(standinDir, 'samples.bin')
    const { code, stderr } = await repro(['table2', '--model', join(dir, quantized), '--data', data, '--out', folder])
    expect(stderr).toContain('is quantized already: expected an unquantized model')
    expect(code).toBe(1)
  })
})
