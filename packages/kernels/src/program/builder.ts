import type { Op, OpKind, OpOf } from '../ops/index.js'
import type { BufferDType, BufferSpec, Dim } from './buffer.js'
import { checkProgram } from './check.js'
import type { KvCacheSpec } from './kv.js'
import type { Program, WeightSpec } from './program.js'

/** Writes a program line by line; `build` checks it. Names must be new; adding the same constant twice is one constant. */
export class ProgramBuilder {
  readonly #name: string
  readonly #kv: KvCacheSpec | undefined
  readonly #buffers: Record<string, BufferSpec> = {}
  readonly #weights: Record<string, WeightSpec> = {}
  readonly #constants: Record<string, Float32Array> = {}
  readonly #ops: Op[] = []

  constructor(name: string, kv?: KvCacheSpec) {
    this.#name = name
    this.#kv = kv
  }

  input(name: string, dtype: BufferDType, shape: readonly Dim[]): string {
    return this.#buffer(name, { dtype, shape, role: 'input' })
  }

  scratch(name: string, dtype: BufferDType, shape: readonly Dim[]): string {
    return this.#buffer(name, { dtype, shape, role: 'scratch' })
  }

  output(name: string, dtype: BufferDType, shape: readonly Dim[]): string {
    return this.#buffer(name, { dtype, shape, role: 'output' })
  }

  weight(name: string, shape: readonly number[], parts: readonly string[] = [name]): string {
    this.#weights[name] = { shape, parts }
    return name
  }

  constant(name: string, values: Float32Array): string {
    this.#constants[name] = values
    return name
  }

  op<K extends OpKind>(kind: K, operands: OpOf<K>['operands'], attrs: OpOf<K>['attrs']): void {
    this.#ops.push({ kind, operands, attrs } as unknown as Op)
  }

  build(): Program {
    const program: Program = {
      name: this.#name,
      buffers: this.#buffers,
      weights: this.#weights,
      constants: this.#constants,
      ...(this.#kv && { kv: this.#kv }),
      ops: this.#ops,
    }
    checkProgram(program)
    return program
  }

  #buffer(name: string, spec: BufferSpec): string {
    if (Object.hasOwn(this.#buffers, name)) throw new Error(`Program '${this.#name}' already has a buffer '${name}'`)
    this.#buffers[name] = spec
    return name
  }
}
