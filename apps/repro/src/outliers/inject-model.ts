import { copyFile, mkdir, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { createShardedSafetensors, type FloatDType, type ModelSource, writeFileAtomic } from '@fireq/formats'
import { outlierFactors, scaleTensor, type TensorFactors } from './fold.js'
import { drawOutliers, type OutlierSettings } from './outliers.js'

/**
 * Writes a model directory of the same function with outliers in its activations. It appears whole or not at all;
 * one that is there already isn't written again.
 */
export async function writeModelWithOutliers(
  source: ModelSource,
  settings: OutlierSettings,
  outDir: string,
  signal?: AbortSignal,
): Promise<void> {
  if (await isDirectory(outDir)) return
  const draft = `${outDir}.partial`
  await rm(draft, { recursive: true, force: true })
  await mkdir(draft, { recursive: true })
  for (const file of await readdir(source.dir)) {
    if (/\.(json|model)$/.test(file) && !file.endsWith('.safetensors.index.json')) {
      await copyFile(join(source.dir, file), join(draft, file))
    }
  }
  await writeFileAtomic(join(draft, 'outliers.json'), `${JSON.stringify(settings, null, 2)}\n`)
  await writeWeights(source, settings, draft, signal)
  await rename(draft, outDir)
}

async function writeWeights(
  source: ModelSource,
  settings: OutlierSettings,
  dir: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  const factors = new Map<string, TensorFactors>()
  for (const [layer, outliers] of drawOutliers(source.config, settings).entries()) {
    for (const [name, change] of outlierFactors(source.config, layer, outliers)) factors.set(name, change)
  }
  const names = source.names()
  const specs = names.map((name) => ({
    name,
    dtype: source.dtype(name) as FloatDType,
    shape: source.shape(name),
  }))
  await using writer = await createShardedSafetensors(dir, specs, { metadata: { format: 'pt' } })
  for (const name of names) {
    signal?.throwIfAborted()
    const tensor = await source.tensor(name)
    if (tensor.kind !== 'dense') throw new Error(`${source.dir} is quantized already: expected an unquantized model`)
    const change = factors.get(name)
    await writer.write(name, (change ? scaleTensor(tensor, change) : tensor).data)
  }
  await writer.finish()
}

async function isDirectory(dir: string): Promise<boolean> {
  return readdir(dir).then(
    () => true,
    () => false,
  )
}
