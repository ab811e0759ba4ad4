import { rm } from 'node:fs/promises'
import type { LayerSnapshot } from '@fireq/calibration'
import { createSafetensors, openSafetensors, readTensor } from '@fireq/formats'

/**
 * Keeps the hidden states between two layers in one file beside the output, so that a killed run needn't repeat the
 * forward pass of finished layers. The file appears whole or not at all, and is only trusted by the identity in it.
 */
export class HiddenStateFile {
  readonly #path: string
  readonly #identity: string

  constructor(path: string, identity: string) {
    this.#path = path
    this.#identity = identity
  }

  async save({ layer, hidden }: LayerSnapshot): Promise<void> {
    const specs = hidden.map(({ length }, i) => ({ name: nameOf(i), dtype: 'f32' as const, shape: [length] }))
    const metadata = { identity: this.#identity, layer: String(layer) }
    await using file = await createSafetensors(this.#path, specs, { metadata, overwrite: true })
    for (const [i, states] of hidden.entries()) await file.write(nameOf(i), states)
    await file.finish()
  }

  /** The states as last saved; undefined if there are none, or of another run, or damaged: then they are recomputed. */
  async load(): Promise<LayerSnapshot | undefined> {
    try {
      await using file = await openSafetensors(this.#path)
      if (file.metadata.identity !== this.#identity) return undefined
      const hidden: Float32Array[] = []
      for (let i = 0; file.has(nameOf(i)); i++) hidden.push((await readTensor(file, nameOf(i))).data as Float32Array)
      return { layer: Number(file.metadata.layer), hidden }
    } catch {
      return undefined
    }
  }

  async remove(): Promise<void> {
    await rm(this.#path, { force: true })
  }
}

function nameOf(window: number): string {
  return `window-${window}`
}
