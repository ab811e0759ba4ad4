import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { LanguageModel } from '../src/index.js'
import { backends } from './support/backends.js'
import { testData } from './support/paths.js'
import { stories260k, storiesPieces } from './support/stories260k.js'

const data = testData('data/stories260k')

/** Odd shapes (head_dim 8, hidden 64, intermediate 172), tied embedding, and text that llama2.c printed. */
describe.skipIf(data.missing).each(backends)(
  `stories260K on $name (skipped if there is no ${data.path})`,
  ({ backend }) => {
    let model: LanguageModel
    beforeAll(async () => {
      const source = stories260k(`${data.path}/stories260K.bin`)
      model = await LanguageModel.load(source, backend, { plan: { compute: 'f32' }, pageSize: 16 })
    })
    afterAll(() => model?.dispose())

    test('greedy text is what llama2.c prints', async () => {
      const pieces = storiesPieces(`${data.path}/tok512.bin`)
      const bytes: Buffer[] = []
      for await (const id of model.generate([1], { maxTokens: 256, stop: [1] })) bytes.push(pieces[id]!)
      const expected = readFileSync(`${data.path}/expected-greedy.txt`, 'utf8')
      expect(Buffer.concat(bytes).toString().trimStart()).toBe(expected.trimEnd())
      expect(bytes).toHaveLength(256)
      model.pool.checkIntegrity()
      expect(model.pool.freePages).toBe(model.pool.pages)
    })
  },
)
