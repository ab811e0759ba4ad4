import { copyFileSync, cpSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { fireq, hasControls, isOneLineError, standin, temporaryFolder } from './support.js'

interface Inspection {
  readonly totals: { tensors: number; values: number; bytes: number; files: number }
  readonly quantization?: { bitsPerWeight: number; recipe: { name: string } }
  readonly tensors: readonly {
    name: string
    dtype: string
    shape: number[]
    bytes: number
    relativeError?: number
    statistics?: { min: number; max: number; mean: number; rms: number; notFinite: number }
  }[]
}

const folder = temporaryFolder()
const rtn = join(folder, 'rtn')

beforeAll(async () => {
  const { code, stderr } = await fireq(['quantize', standin, '--out', rtn, '--recipe', 'rtn'])
  expect(code, stderr).toBe(0)
})

async function json(args: readonly string[]): Promise<Inspection> {
  const { code, stdout, stderr } = await fireq(['inspect', ...args, '--json'])
  expect(code, stderr).toBe(0)
  return JSON.parse(stdout) as Inspection
}

/** A safetensors file made by hand. */
function safetensors(name: string, header: unknown, data: Uint8Array): string {
  const path = join(folder, name)
  const text = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  writeFileSync(path, Buffer.concat([length, text, data]))
  return path
}

describe('inspect', () => {
  it('lists a model for people: layers together, sizes, no control characters', async () => {
    const { code, stdout, stderr } = await fireq(['inspect', standin])
    expect(code).toBe(0)
    expect(stderr).toBe('')
    expect(stdout).toContain('llama: 8 layers, hidden 256')
    expect(stdout).toMatch(/^74 tensors, 8,130,816 values, 15\.5 MiB$/m)
    expect(stdout).toMatch(/^model\.layers\.\*\.mlp\.down_proj\.weight \(8\) +bf16 +\[256, 640\] +16 +2\.50 MiB$/m)
    expect(hasControls(stdout)).toBe(false)
  })

  it('lists a file as its header has it', async () => {
    const path = join(standin, 'model.safetensors')
    const bytes = readFileSync(path)
    const header = JSON.parse(bytes.toString('utf8', 8, 8 + Number(bytes.readBigUInt64LE()))) as Record<
      string,
      { shape: number[] }
    >
    const { tensors, totals } = await json([path])
    const names = Object.keys(header).filter((name) => name !== '__metadata__')
    expect(tensors.map(({ name }) => name).sort()).toEqual(names.sort())
    for (const { name, shape } of tensors) expect(shape).toEqual(header[name]!.shape)
    expect(totals.bytes).toBe(bytes.length - 8 - Number(bytes.readBigUInt64LE()))
  })

  it('computes statistics of the values that match', async () => {
    const values = Float32Array.of(3, -4, 0, Number.NaN)
    const header = {
      'a.x': { dtype: 'F32', shape: [2, 2], data_offsets: [0, 16] },
      b: { dtype: 'I8', shape: [1], data_offsets: [16, 17] },
    }
    const path = safetensors('values.safetensors', header, Buffer.concat([Buffer.from(values.buffer), Buffer.of(1)]))
    const { tensors } = await json([path, '--tensor', 'a*'])
    expect(tensors).toHaveLength(1)
    expect(tensors[0]!.statistics).toMatchObject({
      min: -4,
      max: 3,
      mean: -1 / 3,
      rms: Math.sqrt(25 / 3),
      notFinite: 1,
    })
    const { stdout } = await fireq(['inspect', path, '--tensor', '?'])
    expect(stdout).toMatch(/^b +i8 +\[1\]$/m)
    const none = await fireq(['inspect', path, '--tensor', 'c*'])
    expect(none).toMatchObject({
      code: 1,
      stderr: 'fireq: Expected a tensor that matches c* but none of 2 does, such as a.x\n',
    })
  })

  it('shows bits per weight and errors of a quantized model, recorded and measured the same', async () => {
    const recorded = await json([rtn])
    const measured = await json([rtn, '--against', standin])
    const weights = recorded.tensors.filter(({ dtype }) => dtype === 'int4 g128 bf16')
    expect(weights).toHaveLength(56)
    // 4 bits, a BF16 scale for 128 of them, and 16 bytes of shape for each tensor.
    const values = weights.reduce((sum, { shape }) => sum + shape[0]! * shape[1]!, 0)
    expect(recorded.quantization!.bitsPerWeight).toBeCloseTo(4 + 16 / 128 + (56 * 128) / values, 6)
    expect(recorded.quantization!.recipe.name).toBe('rtn')
    for (const { name, relativeError } of weights) {
      expect(relativeError).toBeGreaterThan(0.05)
      const other = measured.tensors.find((tensor) => tensor.name === name)!
      expect(other.relativeError! / relativeError!).toBeCloseTo(1, 4)
    }
    const norm = measured.tensors.find(({ name }) => name === 'model.norm.weight')!
    expect(norm.relativeError).toBe(0)
    const { stdout } = await fireq(['inspect', rtn])
    expect(stdout).toMatch(/^layer +q +k +v +o +gate +up +down +mean$/m)
    expect(stdout).toMatch(/^ +7( +\d+\.\d\d %){8}$/m)
    expect(hasControls(stdout)).toBe(false)
  })

  it('cannot be made to steer a terminal by what a file says', async () => {
    const header = {
      __metadata__: { '\u001b[2J': '\u0007' },
      '\u001b[31mred': { dtype: 'U8', shape: [1], data_offsets: [0, 1] },
    }
    const { code, stdout } = await fireq(['inspect', safetensors('steer.safetensors', header, Buffer.of(0))])
    expect(code).toBe(0)
    expect(stdout).toContain('\\u{1b}[31mred')
    expect(hasControls(stdout)).toBe(false)
  })

  it('shows what is there of a model that cannot be used, then why not', async () => {
    const dir = join(folder, 'odd')
    mkdirSync(dir)
    copyFileSync(join(standin, 'model.safetensors'), join(dir, 'model.safetensors'))
    expect((await fireq(['inspect', dir])).code).toBe(0)
    writeFileSync(join(dir, 'config.json'), '{"model_type": "gpt2"}')
    const { code, stdout, stderr } = await fireq(['inspect', dir])
    expect(code).toBe(1)
    expect(stdout).toContain('74 tensors')
    expect(stderr).toMatch(/^fireq: .*config\.json.*"gpt2"\n$/)
  })

  it('names a tensor of another shape in what it compares with', async () => {
    const shape = { 'model.norm.weight': { dtype: 'F32', shape: [1], data_offsets: [0, 4] } }
    const other = safetensors('other.safetensors', shape, Buffer.alloc(4))
    const outcome = await fireq(['inspect', standin, '--against', other, '--quiet'])
    expect(outcome.code).toBe(1)
    expect(outcome.stderr).toContain('Expected the shape [256] for tensor "model.norm.weight" but received [1]')
    expect(isOneLineError(outcome)).toBe(true)
  })
})

describe('inspect refuses', () => {
  const ok = { dtype: 'F32', shape: [1], data_offsets: [0, 4] }
  it.each<[string, RegExp, () => string]>([
    ['a file that is not there', /no such file/, () => join(folder, 'none.safetensors')],
    [
      'a directory without weights',
      /Expected model.safetensors or/,
      () => {
        mkdirSync(join(folder, 'bare'))
        return join(folder, 'bare')
      },
    ],
    [
      'an empty file',
      /at least 8 bytes but received 0/,
      () => {
        writeFileSync(join(folder, 'empty.safetensors'), '')
        return join(folder, 'empty.safetensors')
      },
    ],
    [
      'a truncated file',
      /but received an end of/,
      () => {
        const path = join(folder, 'short.safetensors')
        copyFileSync(join(standin, 'model.safetensors'), path)
        truncateSync(path, 1_000_000)
        return path
      },
    ],
    [
      'a header that is too long',
      /Expected a header/,
      () => {
        const path = join(folder, 'long.safetensors')
        writeFileSync(path, Buffer.alloc(16, 255))
        return path
      },
    ],
    [
      'a duplicate tensor',
      /"a"/,
      () => safetensors('twice.safetensors', `{"a":${JSON.stringify(ok)},"a":${JSON.stringify(ok)}}`, Buffer.alloc(4)),
    ],
    [
      'a missing shard',
      /model-00002-of-00010\.safetensors/,
      () => {
        const dir = join(folder, 'shardless')
        cpSync(rtn, dir, { recursive: true })
        rmSync(join(dir, 'model-00002-of-00010.safetensors'))
        return dir
      },
    ],
  ])('%s', async (_, message, path) => {
    const outcome = await fireq(['inspect', path()])
    expect(outcome.stderr).toMatch(message)
    expect(outcome.code).toBe(1)
    expect(isOneLineError(outcome)).toBe(true)
  })
})
