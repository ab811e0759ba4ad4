import { groupByLayer, joinLayers } from './layer-names.js'
import type { Preflight } from './preflight.js'
import type { TensorPlan } from './tensor-plan.js'

/** A preflight as text for people. `tensors` adds a line for each kind of tensor. */
export function printPreflight(report: Preflight, { tensors = false }: { readonly tensors?: boolean } = {}): string {
  const { needs, free } = report
  const lines = [
    `size         ${bytes(report.sourceBytes)} → ${bytes(report.outputBytes)} (${report.bitsPerWeight.toFixed(3)} bits per quantized weight)`,
    `disk         ${bytes(needs.diskBytes)} needed, ${bytes(free.diskBytes)} free`,
    `memory       about ${bytes(needs.memoryBytes)} needed, ${bytes(free.memoryBytes)} free`,
    needs.calibrationTokens === 0
      ? 'calibration  none: the model is not run'
      : `calibration  ${needs.calibrationTokens} tokens, ${scaled(needs.calibrationFlops, [' FLOP', ' kFLOP', ' MFLOP', ' GFLOP', ' TFLOP', ' PFLOP', ' EFLOP'], 1000)}`,
    `rounding     ${scaled(needs.weights, ['', ' thousand', ' million', ' billion'], 1000)} weights`,
    ...report.notes.map((note) => `note         ${note}`),
    ...report.problems.map((problem) => `problem      ${problem}`),
  ]
  return [...lines, ...(tensors ? ['', table(report.tensors)] : [])].join('\n')
}

/** Tensors that differ only in their layer's number share a line. */
function table(tensors: readonly TensorPlan[]): string {
  const alike = groupByLayer(tensors, ({ name, shape, from, to }) => JSON.stringify([name, shape, from, to]))
  const rows = alike.map((group) => {
    const [{ shape, from, to, bits }] = group
    const total = group.reduce((sum, { bytesAfter }) => sum + bytesAfter, 0)
    const type = from === to ? from : `${from} → ${to}`
    return [joinLayers(group.map(({ name }) => name)), `[${shape.join(', ')}]`, type, bits.toFixed(3), bytes(total)]
  })
  const all = [['tensor', 'shape', 'type', 'bits', 'size'], ...rows]
  const widths = all[0].map((_, column) => Math.max(...all.map((row) => row[column].length)))
  return all
    .map((row) => row.map((cell, c) => (c < 3 ? cell.padEnd(widths[c]) : cell.padStart(widths[c]))).join('  '))
    .join('\n')
}

function bytes(count: number): string {
  return `${scaled(count, [' B', ' KiB', ' MiB', ' GiB', ' TiB'], 1024)}`
}

function scaled(count: number, units: readonly string[], step: number): string {
  let [value, unit] = [count, 0]
  while (value >= step && unit < units.length - 1) {
    value /= step
    unit++
  }
  const digits = unit === 0 ? 0 : value < 10 ? 2 : value < 100 ? 1 : 0
  return `${value.toFixed(digits)}${units[unit]}`
}
