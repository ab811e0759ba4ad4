import { attentionCases } from './attention-cases.js'
import { decodeCases } from './decode-cases.js'
import type { GpuCase } from './gpu-case.js'
import { linearCases } from './linear-cases.js'
import { plainLinearCases } from './plain-linear-cases.js'
import { quantizeCases } from './quantize-cases.js'
import { smallCases } from './small-cases.js'
import { storeCases } from './store-cases.js'
import { transferCases } from './transfer-cases.js'
import { w4a16Cases } from './w4a16-cases.js'

/** Every test that needs a GPU. */
export const gpuCases: readonly GpuCase[] = [
  ...smallCases,
  ...transferCases,
  ...quantizeCases,
  ...linearCases,
  ...plainLinearCases,
  ...w4a16Cases,
  ...storeCases,
  ...attentionCases,
  ...decodeCases,
]
