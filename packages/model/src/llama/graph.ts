import type { LlamaConfig } from '@fireq/formats'
import type { ProgramBuilder } from '@fireq/kernels'
import type { LinearSpec } from './linears.js'
import type { LlamaPlan } from './plan.js'
import { type TapPoint, tapName } from './taps.js'

/** What the blocks of a decoder share while they write its program: names of buffers in, names of buffers out. */
export class Graph {
  readonly builder: ProgramBuilder
  readonly config: LlamaConfig
  readonly plan: LlamaPlan
  readonly #taps: ReadonlySet<TapPoint>

  constructor(builder: ProgramBuilder, config: LlamaConfig, plan: LlamaPlan, taps: readonly TapPoint[]) {
    this.builder = builder
    this.config = config
    this.plan = plan
    this.#taps = new Set(taps)
  }

  /** A scratch buffer [tokens, columns] of the plan's compute type. */
  activation(name: string, columns: number): string {
    return this.builder.scratch(name, this.plan.compute, ['tokens', columns])
  }

  /** Copies `x` [tokens, columns] to the tap's output if it was asked for. */
  tap(layer: number, point: TapPoint, x: string, columns: number): void {
    if (!this.#taps.has(point)) return
    const out = this.builder.output(tapName(layer, point), 'f32', ['tokens', columns])
    this.builder.op('tap', { x, out }, {})
  }

  /** RMS norm by the checkpoint's vector `tensor`, bound as `weight`. */
  norm(x: string, weight: string, tensor: string, out: string): string {
    const { hiddenSize, rmsNormEps } = this.config
    this.builder.weight(weight, [hiddenSize], [tensor])
    this.builder.op('rmsNorm', { x, weight, out }, { eps: rmsNormEps })
    return out
  }

  /** A linear of a decoder layer, [tokens, K] → [tokens, N], its input in FP8 if the plan says so. */
  linear(spec: LinearSpec, x: string, out: string): string {
    const { builder } = this
    const [outFeatures, inFeatures] = spec.shape
    const weight = builder.weight(spec.name, spec.shape, spec.parts)
    const bias = spec.biases && builder.weight(`${spec.name}.bias`, [outFeatures], spec.biases)
    const quantized = this.plan.activations === 'e4m3' && !this.plan.unquantizedLinears?.includes(spec.name)
    const input = quantized ? this.quantize(x, `${spec.name}.input`, inFeatures, inFeatures) : undefined
    builder.op(
      'linear',
      { x: input?.values ?? x, ...(input && { xScale: input.scale }), weight, ...(bias && { bias }), out },
      {},
    )
    return out
  }

  /** `x` [tokens, columns] in FP8 with a scale per token and group of columns. */
  quantize(x: string, name: string, columns: number, groupSize: number): { values: string; scale: string } {
    const values = this.builder.scratch(`${name}.e4m3`, 'e4m3', ['tokens', columns])
    const scale = this.builder.scratch(`${name}.scale`, 'f32', ['tokens', columns / groupSize])
    this.builder.op('quantizeFp8', { x, out: values, scale }, { groupSize })
    return { values, scale }
  }

  /** hidden + delta, the residual connection. */
  add(hidden: string, delta: string, out: string): string {
    this.builder.op('add', { a: hidden, b: delta, out }, {})
    return out
  }
}
