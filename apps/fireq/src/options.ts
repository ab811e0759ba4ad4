import type { KvFormat } from '@fireq/formats'
import type { BackendName } from '@fireq/kernels'
import type { LlamaPlan } from '@fireq/model'
import { type Command, InvalidArgumentError, Option } from 'commander'

/** Options of `fireq` itself, which every command has. */
export interface GlobalOptions {
  readonly verbose?: boolean
  readonly quiet?: boolean
}

export interface BackendOptions {
  readonly backend?: BackendName | 'auto'
  readonly threads?: number
}

export interface PlanOptions {
  readonly compute?: LlamaPlan['compute']
  readonly activations?: LlamaPlan['activations']
  readonly queries?: LlamaPlan['queries']
  readonly probabilities?: LlamaPlan['probabilities']
  readonly kv?: KvFormat
}

/** Adds `--backend` and `--threads`. */
export function withBackendOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--backend <name>', 'which backend runs the model').choices(['auto', 'reference', 'cpu', 'cuda']),
    )
    .option('--threads <n>', 'threads of the cpu backend (default: all cores)', wholeNumber(1, 1024))
}

/** Adds what overrides the types in which a model runs. */
export function withPlanOptions(command: Command): Command {
  return command
    .addOption(new Option('--compute <type>', 'activations between ops (default: bf16)').choices(['f32', 'bf16']))
    .addOption(new Option('--activations <type>', 'inputs of the quantized linears').choices(['e4m3', 'none']))
    .addOption(new Option('--queries <type>', 'queries in attention').choices(['e4m3', 'none']))
    .addOption(new Option('--probabilities <type>', 'softmax numerators in attention').choices(['e4m3', 'f32']))
    .option('--kv <format>', `KV cache: ${Object.keys(KV_FORMATS).join(', ')}`, kvFormat)
}

/** The part of a plan that was asked for. */
export function planOverrides({ compute, activations, queries, probabilities, kv }: PlanOptions): Partial<LlamaPlan> {
  const given = { compute, activations, queries, probabilities, kv }
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
}

const KV_FORMATS: Readonly<Record<string, KvFormat>> = {
  f32: { dtype: 'f32' },
  bf16: { dtype: 'bf16' },
  int4: { dtype: 'int4', symmetric: true, scale: 'bf16' },
  'int4-e4m3': { dtype: 'int4', symmetric: true, scale: 'e4m3' },
  'int4-asymmetric': { dtype: 'int4', symmetric: false, scale: 'bf16' },
  'int4-asymmetric-e4m3': { dtype: 'int4', symmetric: false, scale: 'e4m3' },
}

/** The name of a KV format, as `--kv` takes it. */
export function kvName(format: KvFormat): string {
  const same = (other: KvFormat) => JSON.stringify(other, ORDER) === JSON.stringify(format, ORDER)
  return Object.keys(KV_FORMATS).find((name) => same(KV_FORMATS[name]!))!
}

const ORDER = ['dtype', 'symmetric', 'scale']

function kvFormat(text: string): KvFormat {
  if (Object.hasOwn(KV_FORMATS, text)) return KV_FORMATS[text]!
  throw new InvalidArgumentError(`Allowed choices are ${Object.keys(KV_FORMATS).join(', ')}.`)
}

/** A parser of whole numbers in a range, both ends included. */
export function wholeNumber(min: number, max: number = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (/^[+-]?\d+$/.test(text) && value >= min && value <= max) return value
    const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`
    throw new InvalidArgumentError(`Expected a whole number ${range}.`)
  }
}

/** A parser of numbers that `accept` takes. */
export function decimalNumber(expected: string, accept: (value: number) => boolean): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (text.trim() !== '' && Number.isFinite(value) && accept(value)) return value
    throw new InvalidArgumentError(`Expected ${expected}.`)
  }
}
