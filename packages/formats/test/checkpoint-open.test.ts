import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { openModel } from '../src/index.js'

const standin = fileURLToPath(new URL('../../../models/standin', import.meta.url))

test('opens the stand-in', async () => {
  await using model = await openModel(standin)
  expect(model.config).toMatchObject({ hiddenSize: 256, headDim: 128, numKeyValueHeads: 2, tieWordEmbeddings: true })
  expect(model.quantization).toBeUndefined()
  expect(model.names()).toHaveLength(2 + 8 * 9)
  expect(model.has('lm_head.weight')).toBe(false)
  const embedding = await model.tensor('model.embed_tokens.weight')
  expect(embedding).toMatchObject({ kind: 'dense', dtype: 'bf16', shape: [4096, 256] })
  const rows = await model.tensor('model.embed_tokens.weight', { rows: [7, 9] })
  expect(rows.shape).toEqual([2, 256])
})
