import * as kernels from '@fireq/kernels'

/** Backends that this machine can run, and why the others can't. */
export const backends: { name: string; backend: kernels.Backend }[] = [
  { name: 'reference', backend: new kernels.ReferenceBackend() },
]
