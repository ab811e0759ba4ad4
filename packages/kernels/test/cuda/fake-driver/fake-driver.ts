import { spawnSync } from 'node:child_process'
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

// The fields of `State` in fake_cuda.cc, in its order; a number is how many there are.
const fields = {
  version: 1,
  major: 1,
  minor: 1,
  devices: 1,
  memory: 1,
  initResult: 1,
  failCode: 1,
  failSkip: 1,
  holdEvents: 1,
  parameters: 1,
  parameterBytes: 8,
  allocations: 1,
  allocatedBytes: 1,
  pinned: 1,
  events: 1,
  streams: 1,
  graphs: 1,
  modules: 1,
  contexts: 1,
  driverAllocations: 1,
  launches: 1,
  faults: 1,
  grid: 3,
  block: 3,
  sharedBytes: 1,
  cluster: 1,
  dependent: 1,
  maxShared: 1,
  arguments: 64,
} as const
type Field = keyof typeof fields

const offsets = new Map<Field, number>()
let size = 0
for (const [field, count] of Object.entries(fields) as [Field, number][]) {
  offsets.set(field, size)
  size += count * 8
}
const NAME_BYTES = 64

/** What is alive when nothing is. */
export const nothing = {
  allocations: 0,
  allocatedBytes: 0,
  pinned: 0,
  events: 0,
  streams: 0,
  graphs: 0,
  modules: 0,
  contexts: 0,
  faults: 0,
}

/** One pretended driver: its own copy of the library, and its state. */
export class FakeDriver {
  readonly library: string
  readonly #state: number

  constructor(folder: string, built: string, settings: Partial<Record<Field, number>>) {
    mkdirSync(folder)
    this.library = join(folder, 'libcuda.so.1')
    copyFileSync(built, this.library)
    writeFileSync(join(folder, 'state'), Buffer.alloc(size + NAME_BYTES))
    this.#state = openSync(join(folder, 'state'), 'r+')
    const hopper = { version: 13000, major: 9, minor: 0, devices: 1, memory: 2 ** 30 }
    for (const [field, value] of Object.entries({ ...hopper, ...settings })) this.set(field as Field, value)
  }

  get(field: Field, index = 0): number {
    const bytes = Buffer.alloc(8)
    readSync(this.#state, bytes, 0, 8, offsets.get(field)! + 8 * index)
    return Number(bytes.readBigInt64LE())
  }

  set(field: Field, value: number, index = 0): void {
    const bytes = Buffer.alloc(8)
    bytes.writeBigInt64LE(BigInt(value))
    writeSync(this.#state, bytes, 0, 8, offsets.get(field)! + 8 * index)
  }

  /** From now on `call` fails with `code`, after `skip` calls that don't; `code` 0 ends it. */
  fail(call: string, code: number, skip = 0): void {
    const name = Buffer.alloc(NAME_BYTES)
    name.write(call)
    this.set('failCode', 0)
    writeSync(this.#state, name, 0, NAME_BYTES, size)
    this.set('failSkip', skip)
    this.set('failCode', code)
  }

  /** The parameters that every kernel has, in bytes. */
  setParameters(bytes: readonly number[]): void {
    this.set('parameters', bytes.length)
    for (const [i, value] of bytes.entries()) this.set('parameterBytes', value, i)
  }

  /** The arguments of the last launch, one behind the other: as many bytes as `setParameters` said. */
  lastArguments(): DataView {
    const bytes = Buffer.alloc(512)
    readSync(this.#state, bytes, 0, 512, offsets.get('arguments')!)
    return new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  }

  /** What the library thinks is alive, and the calls it found wrong. */
  alive(): typeof nothing {
    return Object.fromEntries(Object.keys(nothing).map((field) => [field, this.get(field as Field)])) as typeof nothing
  }

  close(): void {
    closeSync(this.#state)
  }
}

/** Builds the library once and makes drivers of it, or says why it can't. */
export class FakeDriverFactory {
  readonly #folder = mkdtempSync(join(tmpdir(), 'fireq-cuda-'))
  readonly #drivers: FakeDriver[] = []
  readonly #built = join(this.#folder, 'libfake.so')
  /** Why there are no fake drivers here; undefined if there are. */
  readonly problem: string | undefined

  constructor() {
    const source = fileURLToPath(new URL('fake_cuda.cc', import.meta.url))
    const compiler = process.env.CXX ?? 'c++'
    const args = ['-std=c++20', '-shared', '-fPIC', '-fvisibility=hidden', '-O1', source, '-o', this.#built, '-ldl']
    const { status, stderr, error } = spawnSync(compiler, args, { encoding: 'utf8' })
    if (error !== undefined) this.problem = `no C++ compiler (${error.message})`
    else if (status !== 0) throw new Error(`the fake driver doesn't compile:\n${stderr}`)
  }

  make(settings: Partial<Record<Field, number>> = {}): FakeDriver {
    const driver = new FakeDriver(join(this.#folder, String(this.#drivers.length)), this.#built, settings)
    this.#drivers.push(driver)
    return driver
  }

  close(): void {
    for (const driver of this.#drivers) driver.close()
    rmSync(this.#folder, { recursive: true, force: true })
  }
}
