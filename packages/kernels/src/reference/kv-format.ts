import { type KvFormat, roundBf16, roundE4m3 } from '@fireq/formats'

/** Smallest scale of an INT4 cache; a group of zeros gets it too. */
const smallestScale = { bf16: 2 ** -126, e4m3: 2 ** -9 } as const

/**
 * Replaces a group of keys or values (one token, one head, ≤ 128 channels) by what the cache gives back.
 *
 * Symmetric: s = round(max|x| / 7), q = clamp(rne(x / s), −8, 7), value s·q. Asymmetric: lo = min(0, min x),
 * hi = max(0, max x), s = round((hi − lo) / 15), z = clamp(rne(−lo / s), 0, 15), u = clamp(rne(x / s) + z, 0, 15),
 * value s·(u − z). `round` is to the scale's type, up to its smallest value above; x / s is taken in FP32 with the
 * rounded s. An E4M3 scale saturates at 448. A NaN or infinity in the group makes the whole group NaN.
 */
export function roundKvGroup(x: Float32Array, format: KvFormat, out: Float32Array): void {
  if (format.dtype === 'f32') out.set(x)
  else if (format.dtype === 'bf16') {
    for (let i = 0; i < x.length; i++) out[i] = roundBf16(x[i]!)
  } else if (!x.every(Number.isFinite)) out.fill(Number.NaN, 0, x.length)
  else if (format.symmetric) roundSymmetric(x, format.scale, out)
  else roundAsymmetric(x, format.scale, out)
}

function roundSymmetric(x: Float32Array, scaleType: 'bf16' | 'e4m3', out: Float32Array): void {
  let max = 0
  for (const v of x) max = Math.max(max, Math.abs(v))
  const scale = roundScale(Math.fround(max / 7), scaleType)
  for (let i = 0; i < x.length; i++) out[i] = scale * clamp(roundHalfEven(Math.fround(x[i]! / scale)), -8, 7)
}

function roundAsymmetric(x: Float32Array, scaleType: 'bf16' | 'e4m3', out: Float32Array): void {
  let [lo, hi] = [0, 0]
  for (const v of x) {
    lo = Math.min(lo, v)
    hi = Math.max(hi, v)
  }
  const scale = roundScale(Math.fround(Math.fround(hi - lo) / 15), scaleType)
  const zero = clamp(roundHalfEven(Math.fround(-lo / scale)), 0, 15)
  for (let i = 0; i < x.length; i++) {
    const code = clamp(roundHalfEven(Math.fround(x[i]! / scale)) + zero, 0, 15)
    out[i] = scale * (code - zero)
  }
}

function roundScale(scale: number, type: 'bf16' | 'e4m3'): number {
  return Math.max(type === 'bf16' ? roundBf16(scale) : roundE4m3(scale), smallestScale[type])
}

function clamp(v: number, lo: number, hi: number): number {
  return Math.min(hi, Math.max(lo, v))
}

/** Nearest whole number, halves to the even one. */
function roundHalfEven(v: number): number {
  const below = Math.floor(v)
  const rest = v - below
  return rest < 0.5 || (rest === 0.5 && below % 2 === 0) ? below : below + 1
}
