import type { DType } from '../tensor.js'

/** Element types a safetensors file can hold here. */
export type StoredDType = Exclude<DType, 'i4g'>

interface StoredType {
  /** Its name in a file's header. */
  readonly code: string
  readonly bytes: number
}

const STORED_TYPES: Readonly<Record<StoredDType, StoredType>> = {
  f64: { code: 'F64', bytes: 8 },
  f32: { code: 'F32', bytes: 4 },
  f16: { code: 'F16', bytes: 2 },
  bf16: { code: 'BF16', bytes: 2 },
  e4m3: { code: 'F8_E4M3', bytes: 1 },
  i64: { code: 'I64', bytes: 8 },
  i32: { code: 'I32', bytes: 4 },
  i16: { code: 'I16', bytes: 2 },
  i8: { code: 'I8', bytes: 1 },
  u64: { code: 'U64', bytes: 8 },
  u32: { code: 'U32', bytes: 4 },
  u16: { code: 'U16', bytes: 2 },
  u8: { code: 'U8', bytes: 1 },
  bool: { code: 'BOOL', bytes: 1 },
}

const BY_CODE: ReadonlyMap<string, StoredDType> = new Map(
  (Object.keys(STORED_TYPES) as StoredDType[]).map((dtype) => [STORED_TYPES[dtype].code, dtype]),
)

/** Types that the format has and this package doesn't read. */
const UNSUPPORTED: ReadonlySet<string> = new Set([
  'F8_E5M2',
  'F8_E8M0',
  'F8_E4M3FNUZ',
  'F8_E5M2FNUZ',
  'F4',
  'F6_E2M3',
  'F6_E3M2',
  'C64',
])

/** The dtype of a header's type name, or why there is none. */
export function dtypeOfCode(code: string): StoredDType | 'unsupported' | 'unknown' {
  return BY_CODE.get(code) ?? (UNSUPPORTED.has(code) ? 'unsupported' : 'unknown')
}

/** The name of a dtype in a file's header; undefined for anything else than a stored dtype. */
export function codeOfDType(dtype: string): string | undefined {
  return Object.hasOwn(STORED_TYPES, dtype) ? STORED_TYPES[dtype as StoredDType].code : undefined
}

/** Bytes an element takes. */
export function bytesPerElement(dtype: StoredDType): number {
  return STORED_TYPES[dtype].bytes
}

/** dims × element size, or undefined where that passes 2⁵³ − 1. */
export function byteLengthOf(dtype: StoredDType, shape: readonly number[]): number | undefined {
  let bytes = bytesPerElement(dtype)
  for (const dim of shape) {
    bytes *= dim
    if (!Number.isSafeInteger(bytes)) return undefined
  }
  return bytes
}
