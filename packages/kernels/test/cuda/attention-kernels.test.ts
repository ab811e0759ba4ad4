import { expect, it } from 'vitest'
import { loadAddon } from '../../src/native/load.js'
import { hasKernels } from './support.js'

it.skipIf(!hasKernels)('every attention kernel that a launcher names is in this build', () => {
  const names = loadAddon()
    .addon!.cudaKernels()
    .map(({ name }) => name)
    .filter((name) => name.startsWith('attention_'))
  const dims = [64, 128].map((headDim) => `d${headDim}`)
  const tiles = ['sym', 'asym', 'e4m3'].flatMap((format) => dims.map((dim) => `attention_tiles_${format}_${dim}`))
  const chunks = ['sym', 'asym'].flatMap((format) => dims.map((dim) => `attention_tiles_chunk_${format}_${dim}`))
  const attend = ['prefill', 'prefill_bf16'].flatMap((family) => dims.map((dim) => `attention_${family}_${dim}`))
  const prefill = [...tiles, ...chunks, ...attend]
  const caches = ['sym', 'asym', 'e4m3', 'bf16'].flatMap((format) =>
    [64, 128].map((headDim) => `${format}_d${headDim}`),
  )
  const stores = caches.flatMap((cache) =>
    ['store', 'decode_q8', 'decode_q16'].map((family) => `attention_${family}_${cache}`),
  )
  expect(names.sort()).toEqual([...stores, ...prefill].sort())
})
