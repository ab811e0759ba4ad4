import type { Handle } from '../backend.js'
import { BackendError } from '../errors.js'
import type { CudaAddon, CudaHandle } from './addon-types.js'

/** A native object that is given up once, however often `dispose` is called. */
export abstract class CudaResource<H extends CudaHandle> implements Handle {
  protected readonly addon: CudaAddon
  readonly #kind: string
  #handle: H | undefined

  constructor(addon: CudaAddon, kind: string, handle: H) {
    this.addon = addon
    this.#kind = kind
    this.#handle = handle
  }

  /** For this package's calls into native code. */
  get native(): H {
    if (this.#handle === undefined) throw new BackendError(`The CUDA ${this.#kind} was disposed`)
    return this.#handle
  }

  dispose(): void {
    if (this.#handle !== undefined) this.addon.cudaRelease(this.#handle)
    this.#handle = undefined
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** Native errors as this package's own. */
export function guarded<T>(action: () => T): T {
  try {
    return action()
  } catch (error) {
    throw asBackendError(error)
  }
}

export function asBackendError(error: unknown): BackendError {
  if (error instanceof BackendError) return error
  return new BackendError(error instanceof Error ? error.message : String(error), { cause: error })
}
