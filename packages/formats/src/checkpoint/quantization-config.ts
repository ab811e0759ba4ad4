import { z } from 'zod'
import { integer, oneOf, optional } from '../config/fields.js'
import { mismatch, validate } from '../config/json.js'

/** What `config.json`'s `quantization_config` says, in the one form this library runs. */
export interface QuantizationConfig {
  /** Inputs of the quantized linears: FP8 with a scale per token taken at run time, or as they come. */
  readonly activations: 'e4m3' | 'none'
  /** Elements along K that share a scale. */
  readonly groupSizes: readonly number[]
}

// Field by field what compressed-tensors calls W4A16 or W4AFP8 with symmetric groups.
const weights = z.looseObject(
  {
    num_bits: oneOf(4),
    type: oneOf('int'),
    symmetric: oneOf(true),
    strategy: oneOf('group'),
    group_size: integer(2, 2 ** 24),
    dynamic: oneOf(false).optional(),
    // `static` or `weight` reorders only while quantizing; `group` needs an index at run time.
    actorder: oneOf(null, false, 'static', 'weight').optional(),
  },
  { error: 'an object' },
)
const inputActivations = z.looseObject(
  {
    num_bits: oneOf(8),
    type: oneOf('float'),
    symmetric: oneOf(true),
    strategy: oneOf('token'),
    dynamic: oneOf(true),
  },
  { error: 'an object or null' },
)
/** Absent in any way that tools write it. */
const nothing = z
  .unknown()
  .refine((value) => value === null || isEmptyObject(value), { error: 'null' })
  .optional()
const group = z.looseObject(
  {
    targets: z.array(z.string(), { error: 'a list of names' }),
    format: optional(oneOf('pack-quantized')),
    weights,
    input_activations: optional(inputActivations),
    output_activations: nothing,
  },
  { error: 'an object' },
)
const schema = z.looseObject(
  {
    quant_method: oneOf('compressed-tensors'),
    format: oneOf('pack-quantized'),
    quantization_status: optional(oneOf('compressed')),
    kv_cache_scheme: nothing,
    transform_config: nothing,
    sparsity_config: nothing,
    config_groups: z.record(z.string(), group, { error: 'an object' }),
  },
  { error: 'an object' },
)

function isEmptyObject(value: unknown): boolean {
  return typeof value === 'object' && Object.keys(value as object).length === 0
}

/**
 * Reads `quantization_config`, if there is one.
 * @throws ConfigError naming the file and the first field that isn't supported
 */
export function parseQuantizationConfig(raw: unknown, where: string): QuantizationConfig | undefined {
  if (raw === undefined || raw === null) return undefined
  const at = 'quantization_config'
  const config = validate(schema, raw, where, [at])
  const groups = Object.entries(config.config_groups)
  if (groups.length === 0) throw mismatch('at least one group', `${at}.config_groups`, where, {})
  const activations = groups[0][1].input_activations ? 'e4m3' : 'none'
  for (const [name, group] of groups) {
    if ((group.input_activations ? 'e4m3' : 'none') !== activations) {
      const field = `${at}.config_groups.${name}.input_activations`
      throw mismatch(`the same as in ${groups[0][0]}`, field, where, group.input_activations ?? null)
    }
  }
  return { activations, groupSizes: [...new Set(groups.map(([, group]) => group.weights.group_size))] }
}

/**
 * The `quantization_config` that vLLM runs as W4A8-FP8 or, without activations, W4A16.
 * @param quantized every INT4 weight's module (its name without `.weight`) and group size
 * @param ignored the modules of linears that stay as they are
 */
export function quantizationConfigOf(
  activations: 'e4m3' | 'none',
  quantized: ReadonlyMap<string, number>,
  ignored: readonly string[],
): Record<string, unknown> {
  const groupSizes = [...new Set(quantized.values())].sort((a, b) => a - b)
  const targetsOf = (groupSize: number) =>
    groupSizes.length === 1 ? ['Linear'] : [...quantized].flatMap(([name, size]) => (size === groupSize ? [name] : []))
  const groups = groupSizes.map((groupSize, index) => [
    `group_${index}`,
    {
      targets: targetsOf(groupSize),
      weights: {
        num_bits: 4,
        type: 'int',
        symmetric: true,
        strategy: 'group',
        group_size: groupSize,
        dynamic: false,
      },
      input_activations:
        activations === 'none'
          ? null
          : { num_bits: 8, type: 'float', symmetric: true, strategy: 'token', dynamic: true },
    },
  ])
  return {
    quant_method: 'compressed-tensors',
    format: 'pack-quantized',
    quantization_status: 'compressed',
    ignore: ['lm_head', ...ignored],
    kv_cache_scheme: null,
    config_groups: Object.fromEntries(groups),
  }
}
