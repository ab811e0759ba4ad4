// A Llama block written independently of everything under test: float64, one loop per sum, no shared helpers.
import type { KeyStatistics, LayerGeometry, LayerWeights, Matrix } from '../src/index.js'

interface Trace {
  /** Block output without the residual x, so that x can't hide a difference: [tokens][hiddenSize]. */
  readonly attention: number[][]
  readonly mlp: number[][]
  /** Keys before RoPE, and after it with keyScale applied: [tokens][Hkv·D]. */
  readonly rawKeys: number[][]
  readonly keys: number[][]
}

export function forward(x: number[][], w: LayerWeights, geometry: LayerGeometry, keyScale?: Float32Array): Trace {
  const { numAttentionHeads: H, numKeyValueHeads: Hkv, headDim: D } = geometry
  const normed = x.map((row) => rmsNorm(row, w.inputNorm))
  const q = normed.map((row, t) => rotate(linear(w.q, row, w.qBias), D, t))
  const rawKeys = normed.map((row) => linear(w.k, row, w.kBias))
  const keys = rawKeys.map((row, t) => rotate(row, D, t).map((k, i) => k * (keyScale ? keyScale[i] : 1)))
  const v = normed.map((row) => linear(w.v, row, w.vBias))
  const attention = x.map((_, t) => {
    const heads: number[] = []
    for (let h = 0; h < H; h++) {
      const g = Math.floor((h * Hkv) / H)
      const scores: number[] = []
      for (let s = 0; s <= t; s++) {
        let score = 0
        for (let d = 0; d < D; d++) {
          const query = q[t][h * D + d] / (keyScale ? keyScale[g * D + d] : 1)
          score += query * keys[s][g * D + d]
        }
        scores.push(score / Math.sqrt(D))
      }
      const most = Math.max(...scores)
      const numerators = scores.map((score) => Math.exp(score - most))
      const sum = numerators.reduce((a, b) => a + b)
      for (let d = 0; d < D; d++) {
        heads.push(numerators.reduce((total, e, s) => total + (e / sum) * v[s][g * D + d], 0))
      }
    }
    return linear(w.o, heads, w.oBias)
  })
  const mlp = x.map((row, t) => {
    const input = rmsNorm(
      row.map((value, i) => value + attention[t][i]),
      w.postAttentionNorm,
    )
    const gate = linear(w.gate, input, w.gateBias)
    const up = linear(w.up, input, w.upBias)
    return linear(
      w.down,
      gate.map((a, i) => (a / (1 + Math.exp(-a))) * up[i]),
      w.downBias,
    )
  })
  return { attention, mlp, rawKeys, keys }
}

/** What calibration would measure on these tokens. */
export function keyStatistics({ rawKeys, keys }: Trace, { headDim }: LayerGeometry): KeyStatistics {
  const channels = keys[0].length
  const pairNorm = new Float32Array(channels / 2)
  const postRopeAbsMax = new Float32Array(channels)
  for (let c = 0; c < channels; c++) postRopeAbsMax[c] = Math.max(...keys.map((row) => Math.abs(row[c])))
  for (let head = 0; head < channels / headDim; head++) {
    for (let i = 0; i < headDim / 2; i++) {
      const [a, b] = [head * headDim + i, head * headDim + i + headDim / 2]
      pairNorm[(head * headDim) / 2 + i] = Math.max(...rawKeys.map((row) => Math.hypot(row[a], row[b])))
    }
  }
  return { pairNorm, postRopeAbsMax }
}

/** max|a − b| / max|a| */
export function relativeError(a: number[][], b: number[][]): number {
  let [difference, magnitude] = [0, 0]
  a.forEach((row, t) => {
    row.forEach((value, i) => {
      const gap = Math.abs(value - b[t][i])
      difference = Number.isNaN(gap) ? Infinity : Math.max(difference, gap)
      magnitude = Math.max(magnitude, Math.abs(value))
    })
  })
  return difference / magnitude
}

function linear({ rows, columns, data }: Matrix, x: number[], bias?: Float32Array): number[] {
  return Array.from({ length: rows }, (_, r) => {
    let sum = bias ? bias[r] : 0
    for (let c = 0; c < columns; c++) sum += data[r * columns + c] * x[c]
    return sum
  })
}

function rmsNorm(x: number[], weight: Float32Array): number[] {
  const meanSquare = x.reduce((sum, value) => sum + value * value, 0) / x.length
  return x.map((value, i) => (value / Math.sqrt(meanSquare + 1e-5)) * weight[i])
}

// Positions 3, 10, 17, …: none is 0, where RoPE does nothing.
function rotate(row: number[], headDim: number, token: number): number[] {
  const out = row.slice()
  for (let head = 0; head < row.length; head += headDim) {
    for (let i = 0; i < headDim / 2; i++) {
      const angle = (3 + 7 * token) * 10_000 ** ((-2 * i) / headDim)
      const [a, b] = [row[head + i], row[head + i + headDim / 2]]
      out[head + i] = a * Math.cos(angle) - b * Math.sin(angle)
      out[head + i + headDim / 2] = b * Math.cos(angle) + a * Math.sin(angle)
    }
  }
  return out
}
