import { expect, it } from 'vitest'
import { presets, printPlan, smoothLayer } from '../src/index.js'
import { geometry, measure, randomLayer, randomTokens } from './layers.js'

const g = geometry(4, 2, 32)
const layer = randomLayer(g)
const stats = measure(layer, g, randomTokens(g))

it('has a step for every part of the recipe, in order', () => {
  const { plan } = smoothLayer(layer, g, stats, presets['llama-3-8b'])
  expect(plan.map(({ what, rule, producer, consumer }) => [what, rule, producer, consumer])).toEqual([
    ['value multiplier', 's = 0.9', 'v rows × s', 'o columns ÷ s'],
    ['channel-wise gateUp', 's = 0.0096 / mean|W|', 'postAttentionNorm ÷ s', 'gate, up columns × s'],
    ['channel-wise down', 's = 0.015 / mean|W|', 'up rows ÷ s', 'down columns × s'],
    ['pre-RoPE normalization', 's = 8 / max pair norm', 'k rows × s', 'q rows ÷ s'],
    ['post-RoPE scaling', 's = 8 / max|K|, top 8 and partners', 'keys × s, online', 'queries ÷ s, online'],
  ])
  expect(plan.map(({ scale }) => scale.count)).toEqual([64, 24, 40, 32, 64])
  // Every key channel is handled by one of the last two: pairs left alone by the first are what the second takes.
  expect(2 * plan[3].scale.leftAlone).toBe(64 - plan[4].scale.leftAlone)
})

it('prints one aligned line per step', () => {
  const { plan } = smoothLayer(layer, g, stats, presets['llama-3-8b'])
  const lines = printPlan(plan).split('\n')
  expect(lines).toHaveLength(2 + plan.length)
  // Aligned: the second column starts at the same place in every line.
  expect(new Set([lines[0].indexOf('rule'), ...lines.slice(2).map((line) => line.indexOf('s = '))]).size).toBe(1)
  plan.forEach(({ what, producer, consumer, axis, scale }, i) => {
    for (const cell of [what, producer, consumer, axis, String(scale.count)]) expect(lines[i + 2]).toContain(cell)
  })
})

it('prints an empty plan too, and survives JSON', () => {
  expect(printPlan([])).toBe('nothing folded')
  const { plan } = smoothLayer(layer, g, stats, presets['keys-only'])
  expect(JSON.parse(JSON.stringify(plan))).toEqual(plan)
})
