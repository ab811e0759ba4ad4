import { requireAddon } from '../native/load.js'
import type { GemmChoice, PlainKind } from './addon-types.js'
import { guarded } from './handle.js'

/**
 * Which kernel multiplies an [M, K] activation by an [N, K] weight on a device of so many multiprocessors, and how the work
 * is cut (kernels/cuda/heuristics.hpp). A pure function; needs no GPU. M ≥ 0; N is a multiple of 16, K of 128.
 */
export function chooseGemm(m: number, n: number, k: number, multiprocessors: number): GemmChoice {
  const addon = requireAddon()
  return guarded(() => addon.cudaChooseGemm(m, n, k, multiprocessors))
}

/** The same for INT4 weights in groups of 128 and BF16 activations (kernels/cuda/heuristics_w4a16.hpp). */
export function chooseW4a16(m: number, n: number, k: number, multiprocessors: number): GemmChoice {
  const addon = requireAddon()
  return guarded(() => addon.cudaChooseW4a16(m, n, k, multiprocessors))
}

/**
 * The same among the plain kernels of one kind (kernels/cuda/choose_plain.hpp). For INT4 in groups of 128 that may be a
 * small kernel, which is as precise.
 */
export function choosePlain(kind: PlainKind, m: number, n: number, k: number, multiprocessors: number): GemmChoice {
  const addon = requireAddon()
  return guarded(() => addon.cudaChoosePlain(kind, m, n, k, multiprocessors))
}
