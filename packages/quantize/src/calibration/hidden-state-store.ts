import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { LayerSnapshot } from '@fireq/calibration'
import { createSafetensors, openSafetensors, readTensor } from '@fireq/formats'

const FILE = 'hidden.safetensors'

/**
 * Keeps the hidden states between two layers in a directory beside the output, so that a killed run needn't repeat the
 * forward pass of finished layers. Its one file appears whole or not at all, and is only trusted by the identity in it.
 */
export class HiddenStateStore {
  readonly #dir: string
  readonly #identity: string

  constructor(dir: string, identity: string) {
    this.#dir = dir
    this.#identity = identity
  }

  async save({ layer, hidden }: LayerSnapshot): Promise<void> {
    const specs = hidden.map(({ length }, i) => ({ name: nameOf(i), dtype: 'f32' as const, shape: [length] }))
    const metadata = { identity: this.#identity, layer: String(layer) }
    await mkdir(this.#dir, { recursive: true })
    await using file = await createSafetensors(join(this.#dir, FILE), specs, { metadata, overwrite: true })
    for (const [i, states] of hidden.entries()) await file.write(nameOf(i), states)
    await file.finish()
  }

  /**
   * The states as last saved; undefined if there are none, or of another run, or damaged: then they are recomputed. Half
   * of a file that a killed process was writing is removed.
   */
  async load(): Promise<LayerSnapshot | undefined> {
    for (const name of await readdir(this.#dir).catch(() => [])) {
      if (name.endsWith('.tmp')) await rm(join(this.#dir, name))
    }
    try {
      await using file = await openSafetensors(join(this.#dir, FILE))
      if (file.metadata.identity !== this.#identity) return undefined
      const hidden: Float32Array[] = []
      for (let i = 0; file.has(nameOf(i)); i++) hidden.push((await readTensor(file, nameOf(i))).data as Float32Array)
      return { layer: Number(file.metadata.layer), hidden }
    } catch {
      return undefined
    }
  }

  async remove(): Promise<void> {
    await rm(this.#dir, { recursive: true, force: true })
  }
}

function nameOf(window: number): string {
  return `window-${window}`
}
