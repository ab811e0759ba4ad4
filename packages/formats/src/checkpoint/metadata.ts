import { z } from 'zod'
import { boolean, integer, oneOf } from '../config/fields.js'
import { readJsonFile, validate } from '../config/json.js'
import { MAX_TENSOR_SCALE_EXPONENT } from '../int4/tensor-scale.js'
import type { KvFormat } from '../kv-format.js'
import type { ScaleDType } from '../tensor.js'

/** The file beside `config.json` that other engines ignore. */
export const METADATA_FILE = 'fireq.json'

/** What `weight_scale` doesn't say of an INT4 weight. */
export interface WeightFormat {
  /**
   * The type of the group scales once the tensor scale is taken out again. `f32` is never written: it is what another
   * tool's F16 or F32 scales become.
   */
  readonly scale: ScaleDType
  /** i of the tensor scale 2^i, 0…14; `weight_scale` holds σ·2^−i. Default 0. */
  readonly tensorScaleExponent?: number
  /** Products code·σ are rounded to E4M3. Default false. */
  readonly lookupRounding?: boolean
}

/** `fireq.json`: how a quantized model wants to run. */
export interface FireqMetadata {
  readonly formatVersion: 1
  /** Inputs of the quantized linears: FP8 with a scale per token, or as they come. */
  readonly activations: 'e4m3' | 'none'
  /** Queries: FP8 with a scale per token and head, or as they come. */
  readonly queries: 'e4m3' | 'none'
  readonly probabilities: 'e4m3' | 'f32'
  readonly kv: KvFormat
  /** Every INT4 weight by its Hugging Face name (`….weight`), and no other. */
  readonly weights: Readonly<Record<string, WeightFormat>>
  /** Factors on keys after RoPE, [layer][numKeyValueHeads · headDim]; queries take the inverse. */
  readonly keyScale?: readonly (readonly number[])[]
  /** The recipe the model was made with. */
  readonly recipe?: unknown
  /** Where it comes from. */
  readonly provenance?: Readonly<Record<string, unknown>>
}

const kvSchema: z.ZodType<KvFormat> = z.discriminatedUnion(
  'dtype',
  [
    z.strictObject({ dtype: z.literal('f32') }),
    z.strictObject({ dtype: z.literal('bf16') }),
    z.strictObject({ dtype: z.literal('int4'), symmetric: boolean(), scale: oneOf('bf16', 'e4m3') }),
  ],
  { error: 'an object whose dtype is "f32", "bf16" or "int4"' },
)

/** Also in the journal of a model being written. */
export const weightFormatSchema: z.ZodType<WeightFormat> = z.strictObject(
  {
    scale: oneOf('bf16', 'e4m3'),
    tensorScaleExponent: integer(0, MAX_TENSOR_SCALE_EXPONENT).optional(),
    lookupRounding: boolean().optional(),
  },
  { error: 'an object' },
)

const error = 'a finite number other than 0'
const keyScaleSchema = z.array(z.array(z.number({ error }).refine((value) => value !== 0, { error })))

const metadataSchema: z.ZodType<FireqMetadata> = z.strictObject(
  {
    formatVersion: oneOf(1),
    activations: oneOf('e4m3', 'none'),
    queries: oneOf('e4m3', 'none'),
    probabilities: oneOf('e4m3', 'f32'),
    kv: kvSchema,
    weights: z.record(z.string(), weightFormatSchema, { error: 'an object' }),
    keyScale: keyScaleSchema.optional(),
    recipe: z.unknown().optional(),
    provenance: z.record(z.string(), z.unknown(), { error: 'an object' }).optional(),
  },
  { error: 'an object' },
)

/**
 * Checks what a `fireq.json` says.
 * @throws ConfigError naming the file and the first field that is wrong or unknown
 */
export function parseFireqMetadata(json: unknown, where: string): FireqMetadata {
  return validate(metadataSchema, json, where)
}

/** @throws ConfigError where the file is missing, isn't JSON or says something wrong */
export async function readFireqMetadata(path: string): Promise<FireqMetadata> {
  return parseFireqMetadata(await readJsonFile(path), path)
}

/** The text of a `fireq.json`, the same for the same content; a list of numbers is one line. */
export function formatFireqMetadata(metadata: FireqMetadata): string {
  // Read back first: JSON would write null for a NaN, and nothing for a function.
  const checked = parseFireqMetadata(JSON.parse(JSON.stringify(metadata)), METADATA_FILE)
  const text = JSON.stringify(checked, null, 2)
  // Only indentation has line breaks (a string's are escaped), so this changes no content.
  return `${text.replace(/\[\n\s+[-\d.e+,\s]+\]/g, (list) => list.replace(/\s+/g, ''))}\n`
}
