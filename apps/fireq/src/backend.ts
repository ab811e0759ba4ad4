import { type Backend, ReferenceBackend } from '@fireq/kernels'
import type { BackendOptions } from './options.js'

/** The backend that was asked for, or the best there is. */
export async function openBackend({ backend = 'auto' }: BackendOptions): Promise<Backend> {
  if (backend !== 'auto' && backend !== 'reference') throw new Error(`The ${backend} backend isn't there`)
  return new ReferenceBackend()
}
