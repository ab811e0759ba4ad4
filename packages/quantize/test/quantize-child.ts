import { writeSync } from 'node:fs'
import { openModel } from '@fireq/formats'
import { ReferenceBackend } from '@fireq/kernels'
import { parseRecipe, quantizeModel } from '../src/index.js'
import { tinyFireq, tinyTokens } from './tiny-model.js'

// usage: node quantize-child.js SOURCE OUT; a line of output, written at once, for every progress event
const [sourceDir, outDir] = process.argv.slice(2) as [string, string]
const source = await openModel(sourceDir)
await quantizeModel(source, parseRecipe(tinyFireq), outDir, {
  backend: new ReferenceBackend(),
  calibrationIds: tinyTokens(200),
  saveStatesEveryMs: 0,
  onProgress: ({ stage, layer }) => writeSync(1, `${stage} ${layer}\n`),
})
await source.close()
