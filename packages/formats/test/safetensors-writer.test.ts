import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  bytesPerElement,
  createSafetensors,
  createShardedSafetensors,
  openSafetensors,
  openShardedSafetensors,
  type StoredDType,
  type TensorSpec,
} from '../src/index.js'
import { temporaryDirectory } from './safetensors-files.js'

const DTYPES: StoredDType[] = [
  'f64',
  'f32',
  'f16',
  'bf16',
  'e4m3',
  'i64',
  'i32',
  'i16',
  'i8',
  'u64',
  'u32',
  'u16',
  'u8',
  'bool',
]

const specs = fc.uniqueArray(
  fc.record<TensorSpec>({
    name: fc.oneof(fc.string({ unit: 'grapheme' }), fc.constantFrom('__proto__', 'constructor', '', '"\\')),
    dtype: fc.constantFrom(...DTYPES),
    shape: fc.array(fc.nat(4), { maxLength: 3 }),
  }),
  { selector: (spec) => spec.name, maxLength: 8 },
)

const size = ({ dtype, shape }: TensorSpec) => shape.reduce((product, dim) => product * dim, bytesPerElement(dtype))

/** Bytes that differ from tensor to tensor. */
const bytesOf = (spec: TensorSpec, seed: number) => Uint8Array.from({ length: size(spec) }, (_, i) => i * 7 + seed * 31)

describe('createSafetensors', () => {
  it('writes what the reader reads, in any order, whole or in chunks', async () => {
    const directory = await temporaryDirectory()
    let run = 0
    await fc.assert(
      fc.asyncProperty(specs, fc.boolean(), fc.infiniteStream(fc.nat(1000)), async (all, chunked, order) => {
        const path = join(directory, `${run++}.safetensors`)
        const metadata = { format: 'pt', ключ: '"' }
        const writer = await createSafetensors(path, all, { metadata })
        const shuffled = all
          .map((spec, seed) => ({ spec, seed, key: order.next().value }))
          .sort((a, b) => a.key - b.key)
        for (const { spec, seed } of shuffled) {
          const bytes = bytesOf(spec, seed)
          const middle = bytes.length >> 1
          await writer.write(spec.name, chunked ? [bytes.subarray(0, middle), bytes.subarray(middle)] : bytes)
        }
        await writer.finish()
        await using file = await openSafetensors(path)
        expect({ ...file.metadata }).toEqual(metadata)
        expect(new Set(file.names())).toEqual(new Set(all.map((spec) => spec.name)))
        for (const [seed, spec] of all.entries()) {
          const info = file.info(spec.name)
          expect([info.dtype, info.shape]).toEqual([spec.dtype, spec.shape])
          expect(info.offset % bytesPerElement(spec.dtype)).toBe(0)
          expect(await file.read(spec.name)).toEqual(bytesOf(spec, seed))
        }
      }),
      { numRuns: 60 },
    )
  })

  it('writes typed arrays as they lie in memory, and async chunks', async () => {
    const path = join(await temporaryDirectory(), 'a.safetensors')
    const writer = await createSafetensors(path, [
      { name: 'x', dtype: 'f32', shape: [2] },
      { name: 'y', dtype: 'u8', shape: [3] },
    ])
    async function* chunks(): AsyncGenerator<Uint8Array> {
      yield Uint8Array.of(1)
      yield new Uint8Array(0)
      yield Uint8Array.of(2, 3)
    }
    await Promise.all([writer.write('y', chunks()), writer.write('x', Float32Array.of(9, 1.5, -2).subarray(1))])
    await writer.finish()
    await using file = await openSafetensors(path)
    expect(new Float32Array((await file.read('x')).buffer)).toEqual(Float32Array.of(1.5, -2))
    expect(await file.read('y')).toEqual(Uint8Array.of(1, 2, 3))
  })

  it('shows nothing before it is finished, and leaves nothing when aborted', async () => {
    const directory = await temporaryDirectory()
    const path = join(directory, 'a.safetensors')
    {
      await using writer = await createSafetensors(path, [{ name: 'a', dtype: 'u8', shape: [1] }])
      await writer.write('a', Uint8Array.of(1))
      expect(await readdir(directory)).toEqual([expect.stringMatching(/^\.a\.safetensors\.[0-9a-f]{12}\.tmp$/)])
    }
    expect(await readdir(directory)).toEqual([])
  })

  it('refuses wrong, missing and surplus bytes', async () => {
    const path = join(await temporaryDirectory(), 'a.safetensors')
    await using writer = await createSafetensors(path, [
      { name: 'a', dtype: 'u8', shape: [2] },
      { name: 'b', dtype: 'u8', shape: [2] },
      { name: 'c', dtype: 'u8', shape: [0] },
    ])
    const at = `${path}: `
    await expect(writer.write('z', new Uint8Array(1))).rejects.toThrow(
      `${at}Expected a declared tensor but received "z"`,
    )
    await expect(writer.write('a', [new Uint8Array(2), new Uint8Array(1)])).rejects.toThrow(
      `${at}Expected 2 bytes for tensor "a" but received 3 or more`,
    )
    await writer.write('c', new Uint8Array(0))
    await expect(writer.write('c', new Uint8Array(0))).rejects.toThrow(
      `${at}Expected tensor "c" once but received it again`,
    )
    // A tensor whose write failed isn't written.
    await expect(writer.finish()).rejects.toThrow(`${at}Expected tensor "a" to be written but it isn't`)
    await expect(writer.write('b', new Uint8Array(1))).rejects.toThrow('Expected 2 bytes for tensor "b" but received 1')
    await writer.abort()
    await expect(writer.write('b', new Uint8Array(2))).rejects.toThrow('Expected tensor "b" once')
  })

  it('refuses what the format cannot hold', async () => {
    const path = join(await temporaryDirectory(), 'a.safetensors')
    const create = (...all: Partial<TensorSpec>[]) =>
      createSafetensors(
        path,
        all.map((spec) => ({ name: 'a', dtype: 'u8', shape: [], ...spec })),
      )
    await expect(create({}, {})).rejects.toThrow('Expected every tensor once but received "a" twice')
    await expect(create({ name: '__metadata__' })).rejects.toThrow('a tensor name that the format allows')
    await expect(create({ name: '\ud800' })).rejects.toThrow('a tensor name that the format allows')
    await expect(create({ shape: [-1] })).rejects.toThrow('Expected a valid shape for tensor "a" but received [-1]')
    await expect(create({ shape: [1.5] })).rejects.toThrow('Expected a valid shape for tensor "a" but received [1.5]')
    await expect(create({ shape: [2 ** 30, 2 ** 30] })).rejects.toThrow('Expected a valid shape for tensor "a"')
    await expect(create({ dtype: 'i4g' as 'u8' })).rejects.toThrow(
      'Expected a stored dtype for tensor "a" but received i4g',
    )
    expect(await readdir(join(path, '..'))).toEqual([])
  })

  it('refuses an existing file unless told to overwrite', async () => {
    const path = join(await temporaryDirectory(), 'a.safetensors')
    await writeFile(path, 'precious')
    await expect(createSafetensors(path, [])).rejects.toThrow(
      `${path}: Expected no file of that name but it exists, and overwriting wasn't asked for`,
    )
    const writer = await createSafetensors(path, [], { overwrite: true })
    expect(await readFile(path, 'utf8')).toBe('precious')
    await writer.finish()
    await using file = await openSafetensors(path)
    expect(file.names()).toEqual([])
  })

  it('does not replace a file that appeared meanwhile', async () => {
    const directory = await temporaryDirectory()
    const path = join(directory, 'a.safetensors')
    const writer = await createSafetensors(path, [])
    await writeFile(path, 'precious')
    await expect(writer.finish()).rejects.toThrow('Expected no file of that name but it exists')
    expect(await readFile(path, 'utf8')).toBe('precious')
    expect(await readdir(directory)).toEqual(['a.safetensors'])
  })
})

describe('a killed writer', () => {
  it('leaves no file of the final name', async () => {
    const output = join(await temporaryDirectory(), 'model')
    const script = `
      import { runnerImport } from 'vite'
      const { module } = await runnerImport('./src/safetensors/sharded-writer.ts', {
        configFile: false,
        logLevel: 'error',
        esbuild: { target: 'node20' },
      })
      const specs = ['a', 'b'].map((name) => ({ name, dtype: 'u8', shape: [1000] }))
      const writer = await module.createShardedSafetensors(process.argv[1], specs, { maxShardBytes: 1000 })
      await writer.write('a', new Uint8Array(1000))
      console.log('half')
      setInterval(() => {}, 1000)`
    const child = spawn(process.execPath, ['--input-type=module', '-e', script, output], {
      cwd: join(import.meta.dirname, '..'),
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const exited = once(child, 'exit')
    const [printed] = await Promise.race([once(child.stdout, 'data'), exited])
    expect(String(printed)).toBe('half\n')
    child.kill('SIGKILL')
    await exited
    const left = await readdir(output)
    expect(left).toHaveLength(2)
    for (const name of left) expect(name).toMatch(/^\..*\.tmp$/)
    await expect(openShardedSafetensors(output)).rejects.toThrow('received neither')
    // The leftovers don't stand in the way.
    await (await createShardedSafetensors(output, [])).finish()
    await (await openShardedSafetensors(output)).close()
  })
})

describe('createShardedSafetensors', () => {
  const four: TensorSpec[] = ['a', 'b', 'c', 'd'].map((name, i) => ({ name, dtype: 'u8', shape: [i === 2 ? 9 : 3] }))

  async function write(directory: string, all: TensorSpec[], options: object): Promise<void> {
    await using writer = await createShardedSafetensors(directory, all, options)
    for (const [seed, spec] of all.entries()) await writer.write(spec.name, bytesOf(spec, seed))
    await writer.finish()
  }

  it('fills shards in order and indexes them', async () => {
    const directory = join(await temporaryDirectory(), 'deep', 'model')
    await write(directory, four, { maxShardBytes: 6, metadata: { format: 'pt' } })
    const shards = ['model-00001-of-00003', 'model-00002-of-00003', 'model-00003-of-00003'].map(
      (n) => `${n}.safetensors`,
    )
    expect(await readdir(directory)).toEqual([...shards, 'model.safetensors.index.json'])
    expect(JSON.parse(await readFile(join(directory, 'model.safetensors.index.json'), 'utf8'))).toEqual({
      metadata: { total_size: 18 },
      weight_map: { a: shards[0], b: shards[0], c: shards[1], d: shards[2] },
    })
    await using store = await openShardedSafetensors(directory)
    for (const [seed, spec] of four.entries()) expect(await store.read(spec.name)).toEqual(bytesOf(spec, seed))
  })

  it('is one file where that suffices', async () => {
    const directory = await temporaryDirectory()
    await write(directory, four, {})
    expect(await readdir(directory)).toEqual(['model.safetensors'])
  })

  it('refuses to overwrite, or leaves nothing of what was there', async () => {
    const directory = await temporaryDirectory()
    await write(directory, four, { maxShardBytes: 6 })
    const before = await readdir(directory)
    await expect(write(directory, four, {})).rejects.toThrow(
      `${directory}: Expected a directory without weights but it has model-00001-of-00003.safetensors, and overwriting wasn't asked for`,
    )
    expect(await readdir(directory)).toEqual(before)
    await writeFile(join(directory, 'config.json'), '{}')
    await write(directory, four.slice(0, 2), { overwrite: true })
    expect(await readdir(directory)).toEqual(['config.json', 'model.safetensors'])
    await using store = await openShardedSafetensors(directory)
    expect(store.names()).toEqual(['a', 'b'])
  })

  it('keeps the old weights until all of the new are written', async () => {
    const directory = await temporaryDirectory()
    await write(directory, four, {})
    await using writer = await createShardedSafetensors(directory, four, { maxShardBytes: 6, overwrite: true })
    await writer.write('a', bytesOf(four[0], 0))
    await expect(writer.finish()).rejects.toThrow('Expected tensor "b" to be written but it isn\'t')
    await expect(writer.write('e', new Uint8Array(0))).rejects.toThrow('Expected a declared tensor but received "e"')
    await using store = await openShardedSafetensors(directory)
    expect(await store.read('c')).toEqual(bytesOf(four[2], 2))
  })

  it('refuses a name in two shards, and a shard size that is not positive', async () => {
    const directory = await temporaryDirectory()
    const twice = [four[0], { ...four[2], name: 'a' }]
    await expect(createShardedSafetensors(directory, twice, { maxShardBytes: 3 })).rejects.toThrow(
      'Expected every tensor once but received "a" twice',
    )
    await expect(createShardedSafetensors(directory, four, { maxShardBytes: 0 })).rejects.toThrow(
      'Expected a positive maxShardBytes but received 0',
    )
    expect(await readdir(directory)).toEqual([])
  })
})
