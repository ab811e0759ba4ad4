import { openModel } from '@fireq/formats'
import { preflight } from '@fireq/quantize'
import { describe, expect, it } from 'vitest'
import { bitsPerWeight } from '../src/table2/bits.js'
import { table2Rows } from '../src/table2/rows.js'
import { standinDir } from './support.js'

const rows = table2Rows({ windows: 2, length: 64 })
const recipeOf = (id: string) => rows.find((row) => row.id === id)!.recipe!

describe("table 2's rows", () => {
  it('are the eight that the paper and its ablation have', () => {
    expect(rows.map(({ label }) => label)).toEqual([
      'BF16',
      'RTN',
      '+ tensor scale',
      '+ CAS',
      '+ pre-RoPE',
      '+ post-RoPE',
      'FireQ σFP8',
      'FireQ σBF16',
    ])
  })

  it('can all be made of the stand-in', async () => {
    await using source = await openModel(standinDir)
    for (const { recipe } of rows) {
      if (!recipe) continue
      const { problems } = await preflight(source, recipe, '/nowhere/to/be/written', {
        calibrationIds: new Int32Array(128),
      })
      expect(problems, recipe.name).toEqual([])
    }
  })

  it.each([
    ['rtn', 'tensor-scale', ['weights.tensorScale']],
    ['tensor-scale', 'cas', ['smoothing.channelWise']],
    ['cas', 'pre-rope', ['smoothing.preRope']],
    ['pre-rope', 'post-rope', ['smoothing.postRope']],
    ['post-rope', 'fireq-fp8', ['smoothing.valueMultiplier', 'weights.lookupRounding']],
    ['fireq-fp8', 'fireq-bf16', ['kv.scale', 'weights.lookupRounding', 'weights.scale', 'weights.tensorScale']],
  ])('%s → %s changes just what it says', (before, after, fields) => {
    const [a, b] = [flatten(recipeOf(before)), flatten(recipeOf(after))]
    const changed = [...new Set([...Object.keys(a), ...Object.keys(b)])].filter((key) => a[key] !== b[key])
    const topics = changed.filter((key) => key !== 'name').map((key) => key.split('.').slice(0, 2).join('.'))
    expect([...new Set(topics)].sort()).toEqual(fields)
  })

  it('take the bits that INT4 groups of 128 take', async () => {
    await using source = await openModel(standinDir)
    expect(bitsPerWeight(source.config, recipeOf('fireq-fp8'))).toBe(4 + 8 / 128)
    expect(bitsPerWeight(source.config, recipeOf('fireq-bf16'))).toBe(4 + 16 / 128)
  })
})

/** Leaves by dotted path. */
function flatten(value: object, prefix = ''): Record<string, unknown> {
  return Object.assign(
    {},
    ...Object.entries(value).map(([key, inner]) =>
      inner !== null && typeof inner === 'object' ? flatten(inner, `${prefix}${key}.`) : { [prefix + key]: inner },
    ),
  )
}
