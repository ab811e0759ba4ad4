import { describe, expect, test } from 'vitest'
import { ropeInverseFrequencies } from '../src/index.js'
import { golden } from './support/golden.js'

const LLAMA3 = {
  type: 'llama3',
  factor: 8,
  lowFreqFactor: 1,
  highFreqFactor: 4,
  originalMaxPositionEmbeddings: 512,
} as const

const relativeErrors = (values: ArrayLike<number>, expected: readonly number[]): number[] =>
  expected.map((v, i) => Math.abs(values[i]! - v) / v)

describe('ropeInverseFrequencies', () => {
  test('agrees with transformers on Llama 3.1 scaling to 1e-6', () => {
    const { rope_parameters, inv_freq } = golden.llama3_rope_scaling
    expect(rope_parameters).toMatchObject({
      factor: LLAMA3.factor,
      low_freq_factor: LLAMA3.lowFreqFactor,
      high_freq_factor: LLAMA3.highFreqFactor,
      original_max_position_embeddings: LLAMA3.originalMaxPositionEmbeddings,
    })
    const values = ropeInverseFrequencies({ headDim: 128, rope: { theta: 10000, scaling: LLAMA3 } })
    expect(values).toHaveLength(inv_freq.length)
    expect(Math.max(...relativeErrors(values, inv_freq))).toBeLessThan(1e-6)
  })

  test('has three bands: kept, blended, divided', () => {
    const plain = ropeInverseFrequencies({ headDim: 128, rope: { theta: 500000 } })
    const scaled = ropeInverseFrequencies({
      headDim: 128,
      rope: { theta: 500000, scaling: { ...LLAMA3, originalMaxPositionEmbeddings: 8192 } },
    })
    plain.forEach((frequency, i) => {
      const wavelength = (2 * Math.PI) / frequency
      if (wavelength < 8192 / 4) expect(scaled[i]).toBe(frequency)
      else if (wavelength > 8192) expect(scaled[i]).toBeCloseTo(frequency / 8, 10)
      else {
        expect(scaled[i]).toBeLessThan(frequency)
        expect(scaled[i]).toBeGreaterThan(frequency / 8)
      }
    })
  })

  test('divides every frequency under linear scaling', () => {
    const plain = ropeInverseFrequencies({ headDim: 8, rope: { theta: 10000 } })
    expect([...plain]).toEqual([1, 0.1, 0.01, 0.001].map(Math.fround))
    const scaled = ropeInverseFrequencies({
      headDim: 8,
      rope: { theta: 10000, scaling: { type: 'linear', factor: 4 } },
    })
    expect([...scaled]).toEqual([0.25, 0.025, 0.0025, 0.00025].map(Math.fround))
  })
})
