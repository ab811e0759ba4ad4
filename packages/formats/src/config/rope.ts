import { z } from 'zod'
import { integer, number, oneOf, optional } from './fields.js'
import { mismatch, validate } from './json.js'
import type { RopeConfig, RopeScaling } from './llama-config.js'

/** Hugging Face's base for a Llama that names none (the first Llama 2 configs don't). */
const DEFAULT_THETA = 10_000

/** The fields of a raw config that say how positions rotate. */
interface RawRope {
  /** Until transformers 4. */
  readonly rope_theta?: number
  /** Until transformers 4; the type's key is `type` in the oldest. */
  readonly rope_scaling?: Readonly<Record<string, unknown>>
  /** Since transformers 5: both of the above in one. */
  readonly rope_parameters?: Readonly<Record<string, unknown>>
}

const theta = number(1, 1e15)
const factor = number(1, 1e6)
const frequencyFactor = number(1e-6, 1e6)
const unused = { original_max_position_embeddings: optional(integer(1, 2 ** 31 - 1)) }
const common = {
  rope_type: optional(z.string()),
  type: optional(z.string()),
  rope_theta: optional(theta),
  partial_rotary_factor: optional(oneOf(1)),
}

/** One reader for each type of RoPE. */
const ROPE_TYPES: Record<string, (raw: unknown, where: string, at: string) => RopeScaling | undefined> = {
  default(raw, where, at) {
    validate(z.strictObject({ ...common, ...unused, factor: optional(oneOf(1)) }), raw, where, [at])
    return undefined
  },

  linear(raw, where, at) {
    const linear = validate(z.strictObject({ ...common, ...unused, factor }), raw, where, [at])
    return { type: 'linear', factor: linear.factor }
  },

  llama3(raw, where, at) {
    const llama3 = validate(
      z.strictObject({
        ...common,
        factor,
        low_freq_factor: frequencyFactor,
        high_freq_factor: frequencyFactor,
        original_max_position_embeddings: integer(1, 2 ** 31 - 1),
      }),
      raw,
      where,
      [at],
    )
    if (llama3.low_freq_factor >= llama3.high_freq_factor) {
      const expected = `a number above low_freq_factor (${llama3.low_freq_factor})`
      throw mismatch(expected, `${at}.high_freq_factor`, where, llama3.high_freq_factor)
    }
    return {
      type: 'llama3',
      factor: llama3.factor,
      lowFreqFactor: llama3.low_freq_factor,
      highFreqFactor: llama3.high_freq_factor,
      originalMaxPositionEmbeddings: llama3.original_max_position_embeddings,
    }
  },
}

/** RoPE in either spelling, or in both where they agree. */
export function parseRope(raw: RawRope, where: string): RopeConfig {
  const thetas = [
    ['rope_theta', raw.rope_theta],
    ['rope_parameters.rope_theta', raw.rope_parameters?.rope_theta],
    ['rope_scaling.rope_theta', raw.rope_scaling?.rope_theta],
  ].filter((entry): entry is [string, unknown] => entry[1] !== undefined && entry[1] !== null)
  for (const [field, value] of thetas) validate(theta, value, where, [field])
  const [first, ...others] = thetas
  for (const [field, value] of others) {
    if (value !== first[1]) throw mismatch(`${first[1]}, as ${first[0]} says,`, field, where, value)
  }
  const scaling = parseScaling(raw, where)
  return { theta: first ? (first[1] as number) : DEFAULT_THETA, ...(scaling && { scaling }) }
}

function parseScaling(raw: RawRope, where: string): RopeScaling | undefined {
  const spelled = (['rope_parameters', 'rope_scaling'] as const).flatMap((at) => {
    const found = raw[at]
    return found ? [{ at, scaling: ROPE_TYPES[ropeType(found, where, at)](found, where, at) }] : []
  })
  const [first, second] = spelled
  if (second && JSON.stringify(first.scaling) !== JSON.stringify(second.scaling)) {
    throw mismatch('the same as rope_parameters', second.at, where, raw[second.at])
  }
  return first?.scaling
}

function ropeType(raw: Readonly<Record<string, unknown>>, where: string, at: string): string {
  const named = raw.rope_type ?? raw.type
  const type = named ?? 'default'
  if (typeof type !== 'string' || !Object.hasOwn(ROPE_TYPES, type)) {
    const known = Object.keys(ROPE_TYPES).join(', ')
    throw mismatch(`a supported type (${known})`, `${at}.${'rope_type' in raw ? 'rope_type' : 'type'}`, where, type)
  }
  if (typeof raw.type === 'string' && raw.type !== type) {
    throw mismatch(`${type}, as rope_type says,`, `${at}.type`, where, raw.type)
  }
  return type
}
