import { defineOp } from '../program/op.js'
import { FLOAT, matrix, shaped, weightOf } from './checks.js'

/** out[t] = table[tokens[t]]. tokens i32 [T], table [vocabSize, hiddenSize], out [T, hiddenSize]. */
export const embed = defineOp({
  kind: 'embed',
  roles: { tokens: 'input', table: 'weight', out: 'output' },
  check(ctx) {
    const [rows, hiddenSize] = matrix(ctx, 'out', FLOAT)
    shaped(ctx, 'tokens', ['i32'], [rows])
    weightOf(ctx, 'table', [ctx.weightShape('table')[0] as number, hiddenSize])
  },
  checkFeeds(ctx) {
    const vocabSize = ctx.weightShape('table')[0] as number
    ctx.fed('tokens')?.forEach((id, t) => {
      if (id < 0 || id >= vocabSize) ctx.fail(`token ${t} has id ${id}, outside the vocabulary of ${vocabSize}`)
    })
  },
  run(ctx) {
    const [tokens, table, out] = [ctx.i32('tokens'), ctx.weight('table'), ctx.f32('out')]
    const hiddenSize = table.shape[1] as number
    const row = new Float64Array(hiddenSize)
    tokens.forEach((id, t) => {
      table.decodeRow(id, row)
      for (let i = 0; i < hiddenSize; i++) out[t * hiddenSize + i] = row[i]! * table.channelScale(id)
    })
  },
})
