import { roundE4m3 } from '@fireq/formats'
import { defineOp, type FeedContext, type RunContext } from '../program/op.js'
import { FLOAT, matrix, shaped, typed, whole } from './checks.js'
import { FP8_MAX } from './quantize-fp8.js'

export interface AttentionAttrs {
  readonly [name: string]: number | string
  readonly layer: number
  readonly numAttentionHeads: number
  /** Factor on the scores, usually 1/√headDim. */
  readonly softmaxScale: number
  /** Type of the softmax numerators when they meet the values. */
  readonly probabilities: 'f32' | 'e4m3'
}

/**
 * Causal grouped-query attention over the paged cache, which already holds this step's tokens.
 *
 * Sequence s owns the tokens from queryEnds[s−1] (0 for the first) to queryEnds[s]; its last one is at position
 * contextLengths[s] − 1, and token p of it lies in page pageTable[s, ⌊p / pageSize⌋]. q [T, H·D] in FP32, BF16, or FP8
 * with qScale f32 [T, H]; out [T, H·D].
 *
 * scores = qScale · softmaxScale · q·K; m = max(scores); e = exp(scores − m); out = Σ e·V / Σ e. With FP8
 * probabilities the numerator takes E4M3(448·e)/448 for e, the denominator e itself, as FireQ's kernel does.
 */
export const attention = defineOp({
  kind: 'attention',
  roles: {
    q: 'input',
    qScale: 'input?',
    queryEnds: 'input',
    contextLengths: 'input',
    pageTable: 'input',
    out: 'output',
  },
  check(ctx, { layer, numAttentionHeads, probabilities }: AttentionAttrs) {
    const { numLayers, numKeyValueHeads, headDim } = ctx.kv()
    whole(ctx, 'layer', layer, 0)
    if (layer >= numLayers) ctx.fail(`layer ${layer} is outside a cache of ${numLayers} layers`)
    if (numAttentionHeads % numKeyValueHeads !== 0) {
      ctx.fail(`${numKeyValueHeads} key-value heads don't divide ${numAttentionHeads} attention heads`)
    }
    if (probabilities !== 'f32' && probabilities !== 'e4m3') {
      ctx.fail(`expected probabilities to be f32 or e4m3, but received ${probabilities}`)
    }
    const [rows] = matrix(ctx, 'q', ['f32', 'bf16', 'e4m3'])
    const quantized = ctx.buffer('q').dtype === 'e4m3'
    if (quantized !== ctx.has('qScale')) ctx.fail('qScale goes with a q of type e4m3, and only with that')
    if (quantized) shaped(ctx, 'qScale', ['f32'], [rows, numAttentionHeads])
    shaped(ctx, 'q', ['f32', 'bf16', 'e4m3'], [rows, numAttentionHeads * headDim])
    shaped(ctx, 'out', FLOAT, [rows, numAttentionHeads * headDim])
    const sequences = typed(ctx, 'queryEnds', ['i32']).shape
    shaped(ctx, 'contextLengths', ['i32'], sequences)
    typed(ctx, 'pageTable', ['i32'])
  },
  checkFeeds: checkBatch,
  run(ctx, attrs) {
    const [ends, lengths] = [ctx.i32('queryEnds'), ctx.i32('contextLengths')]
    const pagesPerSequence = ctx.shape('pageTable')[1] as number
    ends.forEach((end, s) => {
      const pages = ctx.i32('pageTable').subarray(s * pagesPerSequence, (s + 1) * pagesPerSequence)
      attendSequence(ctx, attrs, { start: s === 0 ? 0 : ends[s - 1]!, end, contextLength: lengths[s]!, pages })
    })
  },
})

interface Sequence {
  readonly start: number
  readonly end: number
  readonly contextLength: number
  readonly pages: Int32Array
}

function attendSequence(ctx: RunContext, attrs: AttentionAttrs, sequence: Sequence): void {
  const kv = ctx.kv()
  const { numKeyValueHeads, headDim } = kv.spec
  const headsPerGroup = attrs.numAttentionHeads / numKeyValueHeads
  const [q, out] = [ctx.f32('q'), ctx.f32('out')]
  for (let keyHead = 0; keyHead < numKeyValueHeads; keyHead++) {
    const keys = new Float32Array(sequence.contextLength * headDim)
    const values = new Float32Array(sequence.contextLength * headDim)
    for (let p = 0; p < sequence.contextLength; p++) {
      const slot = sequence.pages[Math.floor(p / kv.pageSize)]! * kv.pageSize + (p % kv.pageSize)
      kv.read('key', attrs.layer, slot, keyHead, keys.subarray(p * headDim, (p + 1) * headDim))
      kv.read('value', attrs.layer, slot, keyHead, values.subarray(p * headDim, (p + 1) * headDim))
    }
    for (let t = sequence.start; t < sequence.end; t++) {
      ctx.checkAborted()
      const visible = sequence.contextLength - (sequence.end - 1 - t)
      for (let h = keyHead * headsPerGroup; h < (keyHead + 1) * headsPerGroup; h++) {
        const at = (t * attrs.numAttentionHeads + h) * headDim
        const qScale = ctx.has('qScale') ? ctx.f32('qScale')[t * attrs.numAttentionHeads + h]! : 1
        const row = q.subarray(at, at + headDim)
        attendRow(
          row,
          keys,
          values,
          visible,
          qScale * attrs.softmaxScale,
          attrs.probabilities === 'e4m3',
          out.subarray(at),
        )
      }
    }
  }
}

function attendRow(
  q: Float32Array,
  keys: Float32Array,
  values: Float32Array,
  visible: number,
  scale: number,
  fp8: boolean,
  out: Float32Array,
): void {
  const headDim = q.length
  const scores = new Float64Array(visible)
  for (let p = 0; p < visible; p++) {
    let dot = 0
    for (let i = 0; i < headDim; i++) dot += q[i]! * keys[p * headDim + i]!
    scores[p] = dot * scale
  }
  let max = -Infinity
  for (const s of scores) if (s > max) max = s
  const sums = new Float64Array(headDim)
  let denominator = 0
  for (let p = 0; p < visible; p++) {
    const e = Math.exp(scores[p]! - max)
    denominator += e
    const numerator = fp8 ? roundE4m3(FP8_MAX * e) / FP8_MAX : e
    for (let i = 0; i < headDim; i++) sums[i]! += numerator * values[p * headDim + i]!
  }
  for (let i = 0; i < headDim; i++) out[i] = sums[i]! / denominator
}

function checkBatch(ctx: FeedContext): void {
  const [ends, lengths, table] = [ctx.fed('queryEnds'), ctx.fed('contextLengths'), ctx.fed('pageTable')]
  if (!ends || !lengths || !table) return
  const { pages, pageSize } = ctx.kv()
  const columns = ends.length === 0 ? 0 : table.length / ends.length
  const tokens = ctx.shape('q')[0] as number
  if ((ends.at(-1) ?? 0) !== tokens) {
    ctx.fail(`the sequences end at token ${ends.at(-1) ?? 0}, but the step has ${tokens} tokens`)
  }
  ends.forEach((end, s) => {
    const queries = end - (s === 0 ? 0 : ends[s - 1]!)
    const length = lengths[s]!
    if (queries < 0) ctx.fail(`queryEnds must not fall, but sequence ${s} ends at ${end} after ${ends[s - 1]}`)
    if (length < queries) ctx.fail(`sequence ${s} has ${queries} new tokens but a context of ${length}`)
    const needed = Math.ceil(length / pageSize)
    if (needed > columns)
      ctx.fail(`sequence ${s} of ${length} tokens needs ${needed} pages, but pageTable has ${columns} columns`)
    for (let i = 0; i < needed; i++) {
      const page = table[s * columns + i]!
      if (page < 0 || page >= pages) ctx.fail(`sequence ${s} names page ${page} of a cache of ${pages} pages`)
    }
  })
}
