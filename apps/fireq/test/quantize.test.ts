import { createHash } from 'node:crypto'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { recipeNames } from '@fireq/quantize'
import { beforeAll, describe, expect, it } from 'vitest'
import { fireq, hasControls, isOneLineError, type Running, standin, start, temporaryFolder } from './support.js'

const folder = temporaryFolder()
/** FireQ on few tokens: calibration, smoothing and rounding in a few seconds. */
const small = ['--set', 'calibration.windows=2', 'calibration.length=8']
const rtn = ['--recipe', 'rtn']

/** SHA-256 of every file in a directory, by name. */
function digests(dir: string): Record<string, string> {
  const digest = (name: string) =>
    createHash('sha256')
      .update(readFileSync(join(dir, name)))
      .digest('hex')
  return Object.fromEntries(
    readdirSync(dir)
      .sort()
      .map((name) => [name, digest(name)]),
  )
}

/** Waits until an unfinished run has written as many shards. */
async function shardsWritten(out: string, count: number, { child }: Running): Promise<void> {
  const model = join(`${out}.partial`, 'model')
  const shards = () =>
    existsSync(model) ? readdirSync(model).filter((name) => /^model-.*safetensors$/.test(name)) : []
  while (shards().length < count) {
    if (child.exitCode !== null) throw new Error('it ended before it could be interrupted')
    await setTimeout(2)
  }
}

/** A copy of the stand-in without its samples, changed. */
function model(name: string, change: (dir: string) => void = () => undefined): string {
  const dir = join(folder, name)
  cpSync(standin, dir, { recursive: true, filter: (path) => !/samples\.bin$|train|golden/.test(path) })
  change(dir)
  return dir
}

describe('quantize', () => {
  it('writes a model that runs, and says what it did', async () => {
    const out = join(folder, 'rtn')
    const { code, stdout, stderr } = await fireq(['quantize', standin, '--out', out, ...rtn])
    expect(code).toBe(0)
    expect(stdout).toMatch(/rtn: 15\.5 MiB → 5\.49 MiB in /)
    expect(stdout).toMatch(/^4\.126 bits per quantized weight, mean relative error 1\d\.\d\d %$/m)
    expect(stderr).toMatch(/^memory +about .* needed, .* free$/m)
    expect(stderr).toContain('layer 8 of 8')
    expect(hasControls(stdout + stderr)).toBe(false)
    expect(readdirSync(folder).filter((name) => name.startsWith('rtn'))).toEqual(['rtn'])
    const generated = await fireq(['generate', out, 'The old man', '--max-tokens', '3'])
    expect(generated.code).toBe(0)
    expect(generated.stdout.length).toBeGreaterThan(3)

    const again = await fireq(['quantize', standin, '--out', out, ...rtn])
    expect(again).toMatchObject({ code: 1, stderr: `fireq: ${out} exists, and overwriting was not asked for\n` })
    const before = digests(out)
    const replaced = await fireq(['quantize', standin, '--out', out, ...rtn, '--overwrite', '--quiet', '--json'])
    expect(replaced.stderr).toBe('')
    const result = JSON.parse(replaced.stdout) as { recipe: { name: string }; layers: unknown[]; bitsPerWeight: number }
    expect(result).toMatchObject({ recipe: { name: 'rtn' }, bitsPerWeight: expect.closeTo(4.126, 3) })
    expect(result.layers).toHaveLength(8)
    expect(digests(out)).toEqual(before)

    const twice = await fireq(['quantize', out, '--out', join(folder, 'twice'), ...rtn])
    expect(twice.stderr).toMatch(/^fireq: .* is quantized already/)
    expect(isOneLineError(twice)).toBe(true)
  })

  it('with --dry-run writes nothing, and tells everything', async () => {
    const out = join(folder, 'dry')
    const text = await fireq(['quantize', standin, '--out', out, '--dry-run'])
    expect(text.code).toBe(0)
    expect(text.stdout).toContain(`calibrated on ${join(standin, 'samples.bin')}: 65,536 tokens to choose from`)
    expect(text.stdout).toMatch(/^calibration +20480 tokens/m)
    expect(text.stdout).toMatch(/model\.layers\.\{0-7\}\.mlp\.down_proj\.weight +\[256, 640\] +bf16 → int4 g128 e4m3/)
    expect(hasControls(text.stdout)).toBe(false)
    const json = await fireq(['quantize', standin, '--out', out, '--dry-run', '--json', ...rtn])
    expect(JSON.parse(json.stdout)).toMatchObject({ problems: [], needs: { calibrationTokens: 0, weights: 7077888 } })
    expect(readdirSync(folder).filter((name) => name.startsWith('dry'))).toEqual([])
  })

  it('takes a recipe from a file, and changes of its fields', async () => {
    const recipe = join(folder, 'recipe.json')
    writeFileSync(recipe, JSON.stringify({ name: 'mine', weights: { groupSize: 64 } }))
    const args = [
      '--dry-run',
      '--json',
      '--recipe',
      recipe,
      '--set',
      'kv={"dtype":"f32"}',
      'weights.lookupRounding=true',
    ]
    const { code, stdout, stderr } = await fireq(['quantize', standin, '--out', join(folder, 'o'), ...args])
    expect(code, stderr).toBe(0)
    const { tensors } = JSON.parse(stdout) as { tensors: { name: string; to: string }[] }
    const type = (layer: number) => tensors.find(({ name }) => name === `model.layers.${layer}.mlp.up_proj.weight`)!.to
    expect(type(3)).toBe('int4 g64 bf16 look-up')
  })

  it('knows every recipe that its help names', async () => {
    const { stdout } = await fireq(['quantize', '--help'])
    expect(stdout).toContain(`Recipes: ${recipeNames.join(', ')}, or`)
  })
})

describe('a quantization that is stopped', () => {
  const whole = join(folder, 'whole')
  beforeAll(async () => {
    const { code, stderr } = await fireq(['quantize', standin, '--out', whole, ...small])
    expect(code, stderr).toBe(0)
  })

  it('by Ctrl-C says how to go on, and goes on to the same bits', async () => {
    const out = join(folder, 'c-out')
    const running = start(['quantize', standin, '--out', out, ...small])
    await shardsWritten(out, 3, running)
    running.child.kill('SIGINT')
    const { code, stdout, stderr } = await running.done
    expect(code).toBe(130)
    expect(stdout).toBe('')
    expect(stderr).toContain(`\nfireq: interrupted: what is done is kept in ${out}.partial; the same command resumes\n`)
    expect(existsSync(out)).toBe(false)
    const resumed = await fireq(['quantize', standin, '--out', out, ...small])
    expect(resumed.code, resumed.stderr).toBe(0)
    expect(resumed.stderr).toMatch(/of an unfinished run/)
    expect(digests(out)).toEqual(digests(whole))
    expect(readdirSync(folder).filter((name) => name.startsWith('c-out'))).toEqual(['c-out'])
  })

  it('by kill -9, twice, goes on to the same bits', async () => {
    const out = join(folder, 'k-out')
    for (const shards of [2, 6]) {
      const running = start(['quantize', standin, '--out', out, ...small])
      await shardsWritten(out, shards, running)
      running.child.kill('SIGKILL')
      await running.done
      expect(existsSync(out)).toBe(false)
    }
    const resumed = await fireq(['quantize', standin, '--out', out, ...small])
    expect(resumed.code, resumed.stderr).toBe(0)
    expect(digests(out)).toEqual(digests(whole))
  })

  it('is not mixed with another recipe', async () => {
    const out = join(folder, 'mixed')
    const running = start(['quantize', standin, '--out', out, ...rtn])
    await shardsWritten(out, 2, running)
    running.child.kill('SIGKILL')
    await running.done
    const other = await fireq(['quantize', standin, '--out', out, ...rtn, '--set', 'weights.groupSize=64', '--quiet'])
    expect(other.code).toBe(1)
    expect(isOneLineError(other)).toBe(true)
    expect(other.stderr).toContain('mixed')
  })
})

describe('quantize refuses', () => {
  const bare = model('bare')
  it.each<[string, number, RegExp, () => string[]]>([
    ['to calibrate on nothing', 1, /needs calibration data.*give text with --calibration-data <file>/, () => [bare]],
    [
      'too little calibration text',
      1,
      /Expected at least 20480 calibration tokens .* but received \d+$/m,
      () => {
        writeFileSync(join(folder, 'short.txt'), 'It was a dark and stormy night.')
        return [bare, '--calibration-data', join(folder, 'short.txt')]
      },
    ],
    ['a model that is not there', 1, /nowhere: .*config\.json/, () => [join(folder, 'nowhere'), ...rtn]],
    [
      'an unknown recipe',
      2,
      /a recipe among rtn, fireq, fireq-llama3-8b, fireq-vllm, or a JSON file, but received "awq"/,
      () => [bare, '--recipe', 'awq'],
    ],
    [
      'a recipe that is not JSON',
      1,
      /isn't JSON/,
      () => {
        writeFileSync(join(folder, 'bad.json'), '{')
        return [bare, '--recipe', join(folder, 'bad.json')]
      },
    ],
    [
      'an unknown field',
      1,
      /with weigths\.groupSize=64 can't be used: there is no field "weigths"/,
      () => [bare, ...rtn, '--set', 'weigths.groupSize=64'],
    ],
    [
      'a bad value',
      1,
      /weights\.groupSize: expected a whole number from 2 to 65536 but received "many"/,
      () => [bare, ...rtn, '--set', 'weights.groupSize=many'],
    ],
    [
      'a field within a word',
      2,
      /Expected an object at activations but the recipe has "e4m3"/,
      () => [bare, ...rtn, '--set', 'activations.x=1'],
    ],
    [
      'groups that do not divide',
      1,
      /expected a groupSize that divides K=640 but received 256/,
      () => [bare, ...rtn, '--set', 'weights.groupSize=256'],
    ],
    [
      'to write over its source',
      1,
      /Expected an output directory apart from the model/,
      () => [bare, ...rtn, '--overwrite', '--out', bare],
    ],
    ['a backend that is not there', 1, /cuda backend isn't usable/, () => [standin, '--backend', 'cuda']],
  ])('%s', async (_, code, message, args) => {
    const given = args()
    const out = given.includes('--out') ? [] : ['--out', join(folder, 'refused')]
    const outcome = await fireq(['quantize', ...given, ...out, '--quiet'])
    expect(outcome.stderr).toMatch(message)
    expect(outcome.code).toBe(code)
    expect(isOneLineError(outcome)).toBe(true)
    expect(readdirSync(folder).filter((name) => name.startsWith('refused'))).toEqual([])
  })

  it('weights that are not numbers, naming the tensor, and leaves no model', async () => {
    const dir = model('nan', (path) => {
      const file = join(path, 'model.safetensors')
      const bytes = readFileSync(file)
      const length = Number(bytes.readBigUInt64LE())
      const header = JSON.parse(bytes.toString('utf8', 8, 8 + length)) as Record<
        string,
        { data_offsets: [number, number] }
      >
      const [begin] = header['model.layers.2.mlp.up_proj.weight']!.data_offsets
      bytes.writeUInt16LE(0x7fc0, 8 + length + begin)
      writeFileSync(file, bytes)
    })
    const out = join(folder, 'from-nan')
    const outcome = await fireq(['quantize', dir, '--out', out, ...rtn, '--quiet'])
    expect(outcome.code).toBe(1)
    expect(outcome.stderr).toContain('model.layers.2.mlp.up_proj.weight')
    expect(isOneLineError(outcome)).toBe(true)
    expect(existsSync(out)).toBe(false)
  })

  it('a directory in the way that is no model of ours', async () => {
    const out = join(folder, 'taken')
    mkdirSync(out)
    writeFileSync(join(out, 'thesis.txt'), 'irreplaceable')
    const outcome = await fireq(['quantize', bare, '--out', out, ...rtn])
    expect(outcome.code).toBe(1)
    expect(isOneLineError(outcome)).toBe(true)
    expect(readdirSync(out)).toEqual(['thesis.txt'])
    rmSync(out, { recursive: true })
  })
})
