import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { chooseGemm } from '../../src/cuda/choose-gemm.js'
import { gemmKernelName } from '../../src/cuda/gemm.js'
import { loadAddon } from '../../src/native/load.js'

const { addon } = loadAddon()
const names = new Set(addon?.cudaKernels().map(({ name }) => name))

describe.skipIf(addon === undefined)('the choice of a GEMM kernel', () => {
  const sizes = fc.record({
    m: fc.oneof(fc.integer({ min: 1, max: 200 }), fc.integer({ min: 1, max: 100_000 })),
    n: fc.integer({ min: 1, max: 8000 }).map((v) => v * 16),
    k: fc.integer({ min: 1, max: 500 }).map((v) => v * 128),
    multiprocessors: fc.constantFrom(1, 2, 78, 114, 132, 144),
  })

  it('cuts K into parts of whole groups, a cluster at most', () => {
    fc.assert(
      fc.property(sizes, ({ m, n, k, multiprocessors }) => {
        const choice = chooseGemm(m, n, k, multiprocessors)
        expect(choice.family).not.toBe('none')
        expect(choice.split).toBeGreaterThanOrEqual(1)
        expect(choice.split).toBeLessThanOrEqual(Math.min(8, k / 128))
        expect(chooseGemm(m, n, k, multiprocessors)).toEqual(choice)
      }),
    )
  })

  it.skipIf(names.size === 0)('is a kernel of this build, whatever the weight', () => {
    fc.assert(
      fc.property(sizes, ({ m, n, k, multiprocessors }) => {
        const choice = chooseGemm(m, n, k, multiprocessors)
        for (const full of [false, true]) {
          for (const scaleBytes of [2, 4] as const) {
            for (const siluMul of [false, true]) {
              expect(names).toContain(gemmKernelName(choice, { full, scaleBytes, siluMul }))
            }
          }
        }
      }),
    )
  })

  it('is none for no tokens', () => {
    expect(chooseGemm(0, 4096, 4096, 132)).toMatchObject({ family: 'none' })
  })

  it.each([
    [-1, 16, 128, 132, /whole number ≥ 0 for M/],
    [1.5, 16, 128, 132, /for M/],
    [1, 0, 128, 132, /expected 1 to 2³¹ − 1 for N/],
    [1, 16, 2 ** 31, 132, /for K/],
    [1, 16, 128, 0, /for multiprocessors/],
  ] as const)('refuses %d × %d × %d on %d', (m, n, k, multiprocessors, message) => {
    expect(() => chooseGemm(m, n, k, multiprocessors)).toThrow(message)
  })
})
