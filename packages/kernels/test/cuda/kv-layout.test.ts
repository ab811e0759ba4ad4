import { describe, expect, it } from 'vitest'
import { layouts, PAGE_TOKENS } from './kv-layout.js'

describe.each(layouts)('the layout of a page, $codeBits bits, heads of $headDim', (layout) => {
  const { codeBits, headDim, pageBytes } = layout

  it('has a place of its own for every code and scale, and no room besides', () => {
    const taken = new Uint8Array(pageBytes * 2)
    for (const side of ['key', 'value'] as const) {
      for (let token = 0; token < PAGE_TOKENS; token++) {
        for (let channel = 0; channel < headDim; channel++) {
          const { byte, shift } = layout.placeOf(side, token, channel)
          for (let nibble = 0; nibble < codeBits / 4; nibble++) taken[byte * 2 + shift / 4 + nibble]!++
        }
        if (!layout.hasScales) continue
        for (let nibble = 0; nibble < 4; nibble++) taken[layout.scalePlace(side, token) * 2 + nibble]!++
      }
    }
    expect(taken.every((count) => count === 1)).toBe(true)
  })

  it('gives back what was written', () => {
    const page = new Uint8Array(pageBytes).fill(0xa5)
    const codes = Uint16Array.from({ length: headDim }, (_, i) => (i * 4099) % 2 ** codeBits)
    const vector = { codes, scaleBytes: layout.hasScales ? Uint8Array.of(1, 2) : new Uint8Array(0) }
    layout.write(page, 'value', 37, vector)
    expect(layout.read(page, 'value', 37)).toEqual(vector)
    const left = { 4: [5, 10], 8: [0xa5], 16: [0xa5a5] }[codeBits]
    expect(layout.read(page, 'value', 36).codes.every((code) => left.includes(code))).toBe(true)
  })
})

it('a page is 64 tokens of 132 bytes in INT4 with heads of 128', () => {
  expect(layouts.map(({ pageBytes }) => pageBytes / 64)).toEqual([68, 132, 68, 132, 132, 260, 256, 512])
})
