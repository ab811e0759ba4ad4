import { checkFactor } from './check.js'
import type { Matrix } from './layer.js'
import { checkFinite } from './matrix.js'
import { factorTowards } from './transform.js'

/** Channel-wise scaling: type 0 is s = c, type 1 s = c / max|W|, type 2 s = c / mean|W|; c is the constant. */
export interface ChannelScaling {
  readonly type: 0 | 1 | 2
  /** Type 0: the factor itself, not zero. Types 1 and 2: what the channel's max or mean becomes, positive. */
  readonly constant: number
}

/**
 * The factors of channel-wise scaling for matrices that share their input, as if stacked (FireQ, arXiv 2505.20839):
 * statistics run over all rows of all matrices. Dead channels get 1.
 *
 * @param where names the scaling in errors
 * @param matrices by name, each [any rows, K]
 * @param ties [K], the channel each column belongs to: columns that must share a factor have the same channel and their
 *   statistic is the max or mean over all of them together. By default every column is its own.
 * @returns one factor per channel
 */
export function channelScales(
  where: string,
  matrices: Readonly<Record<string, Matrix>>,
  scaling: ChannelScaling,
  ties?: Int32Array,
): Float64Array {
  const { type, constant } = scaling
  if (type !== 0 && type !== 1 && type !== 2) {
    throw new RangeError(`Expected the type 0, 1 or 2 for the scaling of ${where} but received ${type}`)
  }
  checkFactor(`the constant of ${where}`, constant, type === 0 ? 'nonzero' : 'positive')
  const columns = sharedColumns(where, matrices)
  const channelOf = ties ?? Int32Array.from({ length: columns }, (_, c) => c)
  const channels = channelOf.reduce((most, channel) => Math.max(most, channel), -1) + 1
  if (type === 0) return new Float64Array(channels).fill(constant)
  const statistics = channelStatistics(type, matrices, channelOf, channels)
  return statistics.map((statistic) => factorTowards(constant, statistic))
}

export function channelRule({ type, constant }: ChannelScaling): string {
  return `s = ${constant}${['', ' / max|W|', ' / mean|W|'][type]}`
}

function sharedColumns(where: string, matrices: Readonly<Record<string, Matrix>>): number {
  const [first, ...others] = Object.entries(matrices)
  if (!first) throw new RangeError(`Expected at least one matrix for the scaling of ${where} but received none`)
  for (const [name, { columns }] of others) {
    if (columns !== first[1].columns) {
      throw new RangeError(
        `Expected ${first[1].columns} columns, as in ${first[0]}, for ${name} but received ${columns}`,
      )
    }
  }
  return first[1].columns
}

/** max|W| (type 1) or mean|W| (type 2) of every channel. */
function channelStatistics(
  type: 1 | 2,
  matrices: Readonly<Record<string, Matrix>>,
  channelOf: Int32Array,
  channels: number,
): Float64Array {
  const statistics = new Float64Array(channels)
  let rows = 0
  for (const [name, matrix] of Object.entries(matrices)) {
    checkFinite(name, matrix)
    if (type === 1) takeMaxima(statistics, matrix, channelOf)
    else addMagnitudes(statistics, matrix, channelOf)
    rows += matrix.rows
  }
  if (type === 1) return statistics
  const weightsPerChannel = rows * (channelOf.length / channels)
  return statistics.map((sum) => sum / weightsPerChannel)
}

function takeMaxima(max: Float64Array, { rows, columns, data }: Matrix, channelOf: Int32Array): void {
  for (let r = 0, i = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++, i++) {
      const magnitude = Math.abs(data[i])
      if (magnitude > max[channelOf[c]]) max[channelOf[c]] = magnitude
    }
  }
}

function addMagnitudes(sum: Float64Array, { rows, columns, data }: Matrix, channelOf: Int32Array): void {
  for (let r = 0, i = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++, i++) sum[channelOf[c]] += Math.abs(data[i])
  }
}
