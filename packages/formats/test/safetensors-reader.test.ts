import { mkdir, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { openSafetensors, openShardedSafetensors, readTensor, SafetensorsError, toFloat32 } from '../src/index.js'
import { headerLength, parseHeader } from '../src/safetensors/header.js'
import { fileBytes, temporaryDirectory, temporaryFile } from './safetensors-files.js'

const u8 = (begin: number, end: number, shape: number[] | string = [end - begin]) =>
  `{"dtype":"U8","shape":${typeof shape === 'string' ? shape : JSON.stringify(shape)},"data_offsets":[${begin},${end}]}`

async function problemOf(bytes: Uint8Array): Promise<string> {
  const path = await temporaryFile(bytes)
  try {
    await (await openSafetensors(path)).close()
  } catch (error) {
    expect(error).toBeInstanceOf(SafetensorsError)
    const { message } = error as Error
    expect(message.startsWith(`${path}: `)).toBe(true)
    return message.slice(path.length + 2)
  }
  return 'none'
}

describe('a broken file', () => {
  const data = (length: number) => new Uint8Array(length)
  const entry = (value: string, dataBytes = 4) => fileBytes(`{"a":${value}}`, data(dataBytes))

  it.each<[string, Uint8Array, string]>([
    ['empty', data(0), 'Expected a file of at least 8 bytes but received 0'],
    ['shorter than its length field', data(7), 'Expected a file of at least 8 bytes but received 7'],
    ['without a header', data(8), "Expected { as the header's first byte but received an empty header"],
    [
      'a header longer than the file',
      fileBytes('{}', data(0), 3n),
      "Expected a header within the file's other 2 bytes but received 3",
    ],
    [
      'a header longer than the format allows',
      fileBytes('{}', data(0), 100_000_001n),
      'Expected a header of at most 100000000 bytes but received 100000001',
    ],
    [
      'a header length of 2⁶⁴ − 1',
      fileBytes('{}', data(0), 2n ** 64n - 1n),
      'Expected a header of at most 100000000 bytes but received 18446744073709551615',
    ],
    ['white space first', fileBytes(' {}', data(0)), "Expected { as the header's first byte but received byte 0x20"],
    [
      'a byte order mark',
      fileBytes('\ufeff{}', data(0)),
      "Expected { as the header's first byte but received byte 0xef",
    ],
    [
      'bad UTF-8',
      fileBytes(Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x7d), data(0)),
      'Expected a header in UTF-8 but received other bytes',
    ],
    [
      'overlong UTF-8',
      fileBytes(Uint8Array.of(0x7b, 0x22, 0xc0, 0x80, 0x22, 0x7d), data(0)),
      'Expected a header in UTF-8 but received other bytes',
    ],
    [
      'an unfinished object',
      fileBytes('{', data(0)),
      'Expected " for a key of the header but received the end of the header',
    ],
    [
      'a trailing comma',
      fileBytes(`{"a":${u8(0, 1)},}`, data(1)),
      'Expected " for a key of the header but received "}" at character 53 of the header',
    ],
    [
      'a second object',
      fileBytes('{}{}', data(0)),
      'Expected nothing after the header\'s object but received "{}" at character 2 of the header',
    ],
    [
      'an unfinished string',
      fileBytes('{"a', data(0)),
      'Expected the string of a key of the header to end but received the end of the header',
    ],
    [
      'a control character in a string',
      fileBytes('{"a\n":1}', data(0)),
      'Expected the string of a key of the header to end but received "\\n\\":1}" at character 3 of the header',
    ],
    [
      'a bad escape',
      fileBytes('{"\\x41":1}', data(0)),
      'Expected valid escapes in a key of the header but received "\\\\x41"',
    ],
    [
      'half a surrogate pair',
      fileBytes('{"\\ud800":1}', data(0)),
      'Expected valid Unicode in a key of the header but received "\\\\ud800"',
    ],
    [
      'a tensor twice',
      fileBytes(`{"a":${u8(0, 1)},"a":${u8(1, 2)}}`, data(2)),
      'Expected every key of the header once but received "a" twice',
    ],
    [
      'a tensor twice, once escaped',
      fileBytes(`{"a":${u8(0, 1)},"\\u0061":${u8(1, 2)}}`, data(2)),
      'Expected every key of the header once but received "a" twice',
    ],
    [
      'a shape twice',
      entry('{"dtype":"U8","shape":[4],"shape":[2,2],"data_offsets":[0,4]}'),
      'Expected every key of tensor "a" once but received "shape" twice',
    ],
    [
      'metadata twice',
      fileBytes('{"__metadata__":{},"__metadata__":{}}', data(0)),
      'Expected every key of the header once but received "__metadata__" twice',
    ],
    [
      'metadata that is not text',
      fileBytes('{"__metadata__":{"a":1}}', data(0)),
      'Expected " for the metadata "a" but received "1}}" at character 21 of the header',
    ],
    [
      'a tensor that is not an object',
      entry('[[[[1]]]]'),
      'Expected { for tensor "a" but received "[[[[1]]]]}" at character 5 of the header',
    ],
    [
      'a tensor without dtype',
      entry('{"shape":[4],"data_offsets":[0,4]}'),
      'Expected a dtype for tensor "a" but received none',
    ],
    [
      'a tensor without shape',
      entry('{"dtype":"U8","data_offsets":[0,4]}'),
      'Expected a shape for tensor "a" but received none',
    ],
    [
      'a tensor without offsets',
      entry('{"dtype":"U8","shape":[4]}'),
      'Expected data_offsets for tensor "a" but received none',
    ],
    [
      'an unknown key',
      entry('{"dtype":"U8","shape":[4],"data_offsets":[0,4],"strides":[1]}'),
      'Expected dtype, shape and data_offsets for tensor "a" but received "strides"',
    ],
    [
      'an unknown dtype',
      entry('{"dtype":"bf16","shape":[2],"data_offsets":[0,4]}'),
      'Expected a known dtype for tensor "a" but received "bf16"',
    ],
    [
      'an unsupported dtype',
      entry('{"dtype":"F8_E5M2","shape":[4],"data_offsets":[0,4]}'),
      'Expected a supported dtype for tensor "a" but received F8_E5M2',
    ],
    [
      'a negative dimension',
      entry(u8(0, 4, '[-4]')),
      'Expected a non-negative integer for the shape of tensor "a" but received "-4" at character 28 of the header',
    ],
    [
      'a fractional dimension',
      entry(u8(0, 4, '[4.0]')),
      'Expected a non-negative integer for the shape of tensor "a" but received "4.0" at character 28 of the header',
    ],
    [
      'an exponent',
      entry(u8(0, 4, '[4e0]')),
      'Expected a non-negative integer for the shape of tensor "a" but received "4e0" at character 28 of the header',
    ],
    [
      'a leading zero',
      entry(u8(0, 4, '[04]')),
      'Expected a non-negative integer for the shape of tensor "a" but received "04" at character 28 of the header',
    ],
    [
      'a dimension of 2⁵³',
      entry(u8(0, 4, '[9007199254740992]')),
      'Expected an integer below 2^53 for the shape of tensor "a" but received "9007199254740992" at character 28 of the header',
    ],
    [
      'a product past 2⁵³',
      entry(u8(0, 4, [2 ** 32, 2 ** 32])),
      'Expected a size below 2^53 bytes for tensor "a" but received the shape [4294967296,4294967296]',
    ],
    [
      'a product that wraps around 2⁶⁴ to the right size',
      entry(`{"dtype":"F32","shape":[4611686018427387,4000],"data_offsets":[0,4]}`),
      'Expected a size below 2^53 bytes for tensor "a" but received the shape [4611686018427387,4000]',
    ],
    [
      '65 dimensions',
      entry(u8(0, 4, JSON.stringify(Array(65).fill(1)))),
      'Expected at most 64 numbers for the shape of tensor "a" but received more',
    ],
    [
      'a nested shape',
      entry(u8(0, 4, `${'['.repeat(100_000)}`)),
      'Expected a non-negative integer for the shape of tensor "a" but received "[[[[[[[[[[[[[[[[[[[[" at character 28 of the header',
    ],
    [
      'three offsets',
      entry('{"dtype":"U8","shape":[4],"data_offsets":[0,4,8]}'),
      'Expected at most 2 numbers for the data_offsets of tensor "a" but received more',
    ],
    [
      'one offset',
      entry('{"dtype":"U8","shape":[4],"data_offsets":[4]}'),
      'Expected two data_offsets for tensor "a" but received 1',
    ],
    [
      'offsets out of order',
      entry('{"dtype":"U8","shape":[4],"data_offsets":[4,0]}'),
      'Expected data_offsets in order for tensor "a" but received [4,0]',
    ],
    [
      'a tensor past the end',
      entry(u8(0, 5)),
      'Expected the bytes of tensor "a" within the file\'s 4 bytes of data but received an end of 5',
    ],
    [
      'a size that does not fit the shape',
      entry('{"dtype":"F32","shape":[2],"data_offsets":[0,4]}'),
      'Expected 8 bytes for tensor "a" of dtype F32 and shape [2] but received 4',
    ],
    [
      'an overlap',
      fileBytes(`{"a":${u8(0, 3)},"b":${u8(2, 4)}}`, data(4)),
      'Expected tensor "b" to begin at data byte 3 but received an overlap: 2',
    ],
    [
      'two tensors on the same bytes',
      fileBytes(`{"a":${u8(0, 4)},"b":${u8(0, 4)}}`, data(4)),
      'Expected tensor "b" to begin at data byte 4 but received an overlap: 0',
    ],
    [
      'a hole',
      fileBytes(`{"b":${u8(3, 4)},"a":${u8(0, 2)}}`, data(4)),
      'Expected tensor "b" to begin at data byte 2 but received a hole: 3',
    ],
    ['a hole at the start', entry(u8(1, 4)), 'Expected tensor "a" to begin at data byte 0 but received a hole: 1'],
    ['trailing bytes', entry(u8(0, 3)), 'Expected the file to end with its last tensor but received 1 bytes more'],
    [
      'data without tensors',
      fileBytes('{}', data(4)),
      'Expected the file to end with its last tensor but received 4 bytes more',
    ],
  ])('%s', async (_, bytes, problem) => {
    expect(await problemOf(bytes)).toBe(problem)
  })

  it('is a directory, or missing', async () => {
    const directory = await temporaryDirectory()
    await expect(openSafetensors(directory)).rejects.toThrow('Expected a safetensors file but received something else')
    const missing = join(directory, 'missing.safetensors')
    await expect(openSafetensors(missing)).rejects.toThrow(`${missing}: Expected a safetensors file but received none`)
  })

  it('is refused before memory is taken for what it claims', async () => {
    const before = process.memoryUsage().arrayBuffers
    const bytes = fileBytes('{}', data(0), 99_999_999n)
    expect(await problemOf(bytes)).toBe("Expected a header within the file's other 2 bytes but received 99999999")
    expect(await problemOf(fileBytes(`{"a":${u8(0, 2 ** 40)}}`, data(1)))).toContain(
      'but received an end of 1099511627776',
    )
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4e6)
  })
})

describe('a good file', () => {
  it('gives its tensors, whole and in ranges', async () => {
    const header = `{"b":${u8(2, 6, [2, 2])},"__metadata__":{"format":"pt","__proto__":"x"}, "a":${u8(0, 2)}}   `
    const path = await temporaryFile(fileBytes(header, Uint8Array.of(1, 2, 3, 4, 5, 6)))
    await using file = await openSafetensors(path)
    expect(file.names()).toEqual(['b', 'a'])
    expect({ ...file.metadata }).toEqual(JSON.parse('{"format":"pt","__proto__":"x"}'))
    expect(file.info('b')).toEqual({ dtype: 'u8', shape: [2, 2], offset: 8 + header.length + 2, bytes: 4 })
    expect(await file.read('b')).toEqual(Uint8Array.of(3, 4, 5, 6))
    expect(await file.readRange('b', 1, 3)).toEqual(Uint8Array.of(4, 5))
    expect(await file.readRange('b', 4, 4)).toEqual(new Uint8Array(0))
  })

  it('may have scalars, tensors without elements, and no tensors', async () => {
    const header = `{"scalar":${u8(0, 1, [])},"none":${u8(1, 1, [0, 7])},"x":${u8(1, 3)},"first":${u8(0, 0)}}`
    await using file = await openSafetensors(await temporaryFile(fileBytes(header, Uint8Array.of(7, 8, 9))))
    expect(await file.read('scalar')).toEqual(Uint8Array.of(7))
    expect(await file.read('none')).toEqual(new Uint8Array(0))
    expect(await file.read('x')).toEqual(Uint8Array.of(8, 9))
    expect(await problemOf(fileBytes('{}', new Uint8Array(0)))).toBe('none')
  })

  it('may have any names', async () => {
    const names = ['__proto__', 'constructor', '', 'ключ', '\\"\n', 'toString']
    const entries = names.map((name, i) => `${JSON.stringify(name)}:${u8(i, i + 1)}`)
    const bytes = fileBytes(`{${entries.join(',')}}`, Uint8Array.from(names.keys()))
    await using file = await openSafetensors(await temporaryFile(bytes))
    expect(file.names()).toEqual(names)
    for (const [i, name] of names.entries()) expect(await file.read(name)).toEqual(Uint8Array.of(i))
    expect(file.has('hasOwnProperty')).toBe(false)
    expect(() => file.info('hasOwnProperty')).toThrow(
      'Expected tensor "hasOwnProperty" but the file has none of that name',
    )
  })

  it('refuses ranges out of a tensor, and reads once closed or cut', async () => {
    const path = await temporaryFile(fileBytes(`{"a":${u8(0, 2)},"b":${u8(2, 4)}}`, new Uint8Array(4)))
    const file = await openSafetensors(path)
    for (const [start, end] of [
      [0, 3],
      [-1, 1],
      [2, 1],
      [0.5, 1],
      [0, NaN],
    ]) {
      await expect(file.readRange('a', start, end)).rejects.toThrow(
        `Expected a range within 0…2 of tensor "a" but received ${start}…${end}`,
      )
    }
    await truncate(path, file.info('b').offset + 1)
    await expect(file.read('b')).rejects.toThrow('but the file has been cut')
    await file.close()
    await file.close()
    await expect(file.read('a')).rejects.toThrow('Expected an open file but it is closed')
  })

  it('of 100,000 tensors parses in bounded time', () => {
    const entries = Array.from({ length: 100_000 }, (_, i) => `"model.layers.${i}.weight":${u8(i, i + 1)}`)
    const header = new TextEncoder().encode(`{${entries.join(',')}}`)
    const start = process.cpuUsage()
    const { tensors } = parseHeader('many', header, 8 + header.length + 100_000)
    expect(process.cpuUsage(start).user / 1000).toBeLessThan(1500)
    expect(tensors.size).toBe(100_000)
  })
})

describe('random damage', () => {
  const header = `{"__metadata__":{"format":"pt"},"a":${u8(0, 6, [2, 3])},"b":{"dtype":"BF16","shape":[2],"data_offsets":[6,10]}}`
  const good = fileBytes(
    header,
    Uint8Array.from({ length: 10 }, (_, i) => i),
  )

  /** Parses as `openSafetensors` does: the tensors of whatever still is a valid file, else the problem. */
  function parse(bytes: Uint8Array): 'refused' | number {
    try {
      const length = headerLength('damaged', bytes.subarray(0, 8), bytes.length)
      const { tensors } = parseHeader('damaged', bytes.subarray(8, 8 + length), bytes.length)
      return [...tensors.values()].reduce((sum, tensor) => sum + tensor.bytes, 0)
    } catch (error) {
      expect(error).toBeInstanceOf(SafetensorsError)
      return 'refused'
    }
  }

  it('is refused, or leaves tensors within the file', () => {
    expect(parse(good)).toBe(10)
    const flips = fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 8 })
    const cut = fc.oneof(fc.constant(good.length), fc.nat(good.length))
    fc.assert(
      fc.property(flips, cut, (changes, length) => {
        const bytes = good.slice()
        for (const [index, value] of changes) bytes[index] = value
        const result = parse(bytes.subarray(0, length))
        if (result !== 'refused') expect(result).toBeLessThanOrEqual(length)
      }),
      { numRuns: 5000 },
    )
  })

  it('is refused wherever the file is cut', () => {
    for (let length = 0; length < good.length; length++) expect(parse(good.subarray(0, length))).toBe('refused')
  })

  it('of a file on disk never takes more memory than the file', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(good.length - 1), fc.nat(255), async (index, value) => {
        const bytes = good.slice()
        bytes[index] = value
        const file = await openSafetensors(await temporaryFile(bytes)).catch((error) => error)
        if (file instanceof SafetensorsError) return
        const all = await Promise.all(file.names().map((name: string) => file.read(name)))
        await file.close()
        expect(all.reduce((sum, tensor) => sum + tensor.buffer.byteLength, 0)).toBeLessThanOrEqual(bytes.length)
      }),
    )
  })

  it('in JSON text is refused or read as JSON.parse reads it', () => {
    const text = fc.string({ unit: fc.constantFrom(...'{}[]":,0123456789.-e\\u dtypeshapeU8_offsets') })
    fc.assert(
      fc.property(text, fc.nat(header.length), (piece, at) => {
        const changed = header.slice(0, at) + piece + header.slice(at)
        const bytes = fileBytes(changed, new Uint8Array(10))
        if (parse(bytes) === 'refused') return
        const { tensors } = parseHeader('changed', bytes.subarray(8, -10), bytes.length)
        const truth = Object.entries(JSON.parse(changed)).filter(([name]) => name !== '__metadata__')
        expect([...tensors].map(([name, { shape }]) => [name, shape])).toEqual(
          truth.map(([name, value]) => [name, (value as { shape: number[] }).shape]),
        )
      }),
      { numRuns: 2000 },
    )
  })
})

describe('readTensor', () => {
  const f32 = Float32Array.of(1, 2, 3, 4, 5, 6)
  const header =
    '{"m":{"dtype":"F32","shape":[3,2],"data_offsets":[0,24]},"i":{"dtype":"I64","shape":[],"data_offsets":[24,32]},"h":{"dtype":"F16","shape":[1],"data_offsets":[32,34]},"s":{"dtype":"BF16","shape":[],"data_offsets":[34,36]}}'
  const open = async () => {
    const data = new Uint8Array(36)
    data.set(new Uint8Array(f32.buffer))
    data.set([0x00, 0x3c, 0xc0, 0xbf], 32)
    return openSafetensors(await temporaryFile(fileBytes(header, data)))
  }

  it('reads floats, whole and by rows', async () => {
    await using file = await open()
    expect(await readTensor(file, 'm')).toEqual({ kind: 'dense', dtype: 'f32', shape: [3, 2], data: f32 })
    const rows = await readTensor(file, 'm', { shape: [3, 2], rows: [1, 3] })
    expect(rows).toEqual({ kind: 'dense', dtype: 'f32', shape: [2, 2], data: f32.subarray(2) })
    expect(toFloat32(await readTensor(file, 'h'))).toEqual(Float32Array.of(1))
    expect(await readTensor(file, 's')).toEqual({
      kind: 'dense',
      dtype: 'bf16',
      shape: [],
      data: Uint16Array.of(0xbfc0),
    })
  })

  it('refuses another dtype, shape, or rows that are not there', async () => {
    await using file = await open()
    const at = `${file.path}: `
    await expect(readTensor(file, 'i')).rejects.toThrow(
      `${at}Expected the dtype f32, f16 or bf16 for tensor "i" but received i64`,
    )
    await expect(readTensor(file, 'm', { shape: [2, 3] })).rejects.toThrow(
      `${at}Expected the shape [2,3] for tensor "m" but received [3,2]`,
    )
    await expect(readTensor(file, 'm', { rows: [2, 4] })).rejects.toThrow(
      `${at}Expected rows within 0…3 for tensor "m" but received 2…4`,
    )
    await expect(readTensor(file, 's', { rows: [0, 1] })).rejects.toThrow(
      `${at}Expected a tensor with rows for tensor "s" but received a scalar`,
    )
    await expect(readTensor(file, 'x')).rejects.toThrow(`${at}Expected tensor "x" but the file has none of that name`)
  })
})

describe('openShardedSafetensors', () => {
  const shard = (name: string, value: number) => fileBytes(`{"${name}":${u8(0, 1)}}`, Uint8Array.of(value))
  const problem = async (files: Record<string, Uint8Array | string>) => {
    const directory = await directoryOf(files)
    const error = await openShardedSafetensors(directory).catch((caught) => caught)
    expect(error).toBeInstanceOf(SafetensorsError)
    return (error as Error).message.replaceAll(directory, 'DIR')
  }
  const directoryOf = async (files: Record<string, Uint8Array | string>) => {
    const directory = join(await temporaryDirectory(), 'model')
    await mkdir(directory)
    for (const [name, content] of Object.entries(files)) await writeFile(join(directory, name), content)
    return directory
  }
  const INDEX = 'model.safetensors.index.json'
  const index = (weightMap: Record<string, unknown>) => JSON.stringify({ metadata: {}, weight_map: weightMap })

  it('reads a single file, and shards', async () => {
    await using single = await openShardedSafetensors(await directoryOf({ 'model.safetensors': shard('a', 5) }))
    expect(await single.read('a')).toEqual(Uint8Array.of(5))
    const directory = await directoryOf({ [INDEX]: index({ a: '1', b: '2' }), '1': shard('a', 1), '2': shard('b', 2) })
    await using sharded = await openShardedSafetensors(directory)
    expect(sharded.names()).toEqual(['a', 'b'])
    expect([sharded.has('b'), sharded.has('c')]).toEqual([true, false])
    expect(await sharded.read('b')).toEqual(Uint8Array.of(2))
    expect(await sharded.readRange('a', 0, 1)).toEqual(Uint8Array.of(1))
    expect(() => sharded.info('c')).toThrow(`${directory}: Expected tensor "c" but no file has one of that name`)
  })

  it.each<[string, Record<string, Uint8Array | string>, string]>([
    [
      'no weights',
      {},
      'DIR: Expected model.safetensors or model.safetensors.index.json in the directory but received neither',
    ],
    ['bad JSON', { [INDEX]: '{' }, `DIR/${INDEX}: Expected JSON but received: `],
    ['no weight_map', { [INDEX]: '{"metadata":{}}' }, `DIR/${INDEX}: Expected an object weight_map but received none`],
    [
      'a shard above the directory',
      { [INDEX]: index({ a: '../a.safetensors' }) },
      `DIR/${INDEX}: Expected a plain file name for tensor "a" but received "../a.safetensors"`,
    ],
    [
      'an absolute shard',
      { [INDEX]: index({ a: '/etc/passwd' }) },
      `DIR/${INDEX}: Expected a plain file name for tensor "a" but received "/etc/passwd"`,
    ],
    [
      'a Windows path',
      { [INDEX]: index({ a: '..\\a' }) },
      `DIR/${INDEX}: Expected a plain file name for tensor "a" but received "..\\\\a"`,
    ],
    [
      'a shard that is not a name',
      { [INDEX]: index({ a: 7 }) },
      `DIR/${INDEX}: Expected a plain file name for tensor "a" but received 7`,
    ],
    [
      'a missing shard',
      { [INDEX]: index({ a: '1', b: '2' }), '1': shard('a', 1) },
      `DIR/${INDEX}: Expected the shard "2" in the directory but received none`,
    ],
    [
      'a tensor that its shard does not have',
      { [INDEX]: index({ a: '1', b: '1' }), '1': shard('a', 1) },
      `DIR/${INDEX}: Expected tensor "b" in "1" but the shard has none of that name`,
    ],
    [
      'a tensor in two shards',
      { [INDEX]: index({ a: '1', b: '2' }), '1': shard('a', 1), '2': shard('a', 2) },
      `DIR/${INDEX}: Expected tensor "a" in one shard but received it in DIR/1 and DIR/2`,
    ],
    [
      'a broken shard',
      { [INDEX]: index({ a: '1' }), '1': new Uint8Array(3) },
      'DIR/1: Expected a file of at least 8 bytes',
    ],
  ])('refuses %s', async (_, files, message) => {
    expect(await problem(files)).toContain(message)
  })
})

const STANDIN = fileURLToPath(new URL('../../../models/standin', import.meta.url))

describe('the stand-in model', () => {
  it('opens, and its tensors are finite', async () => {
    await using store = await openShardedSafetensors(STANDIN)
    const embedding = await readTensor(store, 'model.embed_tokens.weight', { shape: [4096, 256] })
    expect(embedding.dtype).toBe('bf16')
    expect(toFloat32(embedding).every(Number.isFinite)).toBe(true)
    const rows = await readTensor(store, 'model.embed_tokens.weight', { rows: [1000, 1002] })
    expect(rows.data).toEqual(embedding.data.slice(1000 * 256, 1002 * 256))
  })
})
