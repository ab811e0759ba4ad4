import type { NodeOf } from '../program/op.js'
import { attention } from './attention.js'
import { add, gatherRows, siluMul, tap } from './elementwise.js'
import { embed } from './embed.js'
import { rmsNormQuantize, siluMulQuantize } from './fused.js'
import { linear } from './linear.js'
import { quantizeFp8 } from './quantize-fp8.js'
import { rmsNorm } from './rms-norm.js'
import { rope } from './rope.js'
import { sample } from './sample.js'
import { scaleKeys } from './scale-keys.js'
import { storeKv } from './store-kv.js'

/** Every op there is. A new one is a file beside these and a line here; then each backend says how it runs it. */
export const ops = {
  embed,
  rmsNorm,
  quantizeFp8,
  linear,
  rope,
  scaleKeys,
  storeKv,
  attention,
  siluMul,
  add,
  tap,
  gatherRows,
  sample,
  rmsNormQuantize,
  siluMulQuantize,
} as const

export type OpKind = keyof typeof ops

/** Any op of a program, told apart by `kind`. */
export type Op = { [K in OpKind]: NodeOf<(typeof ops)[K]> }[OpKind]
export type OpOf<K extends OpKind> = NodeOf<(typeof ops)[K]>
