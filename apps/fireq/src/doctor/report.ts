import { formatBytes, printable } from '../terminal/format.js'
import { colorsFor } from '../terminal/output.js'
import type { Health } from './examine.js'

/** What was found, for people. */
export function formatHealth({
  fireq,
  node,
  platform,
  cpu,
  cores,
  memoryBytes,
  freeMemoryBytes,
  backends,
  environment,
}: Health): string {
  const colors = colorsFor(process.stdout)
  const lines: [string, string][] = [
    ['fireq', fireq],
    ['node', node],
    ['platform', platform],
    ['processor', `${cpu}, ${cores} ${cores === 1 ? 'core' : 'cores'}`],
    ['memory', `${formatBytes(memoryBytes)}, ${formatBytes(freeMemoryBytes)} free`],
  ]
  for (const { name, usable, detail } of backends) {
    const [first = '', ...others] = detail.split('\n').map((line) => printable(line))
    lines.push([name, `${usable ? colors.green('usable') : colors.yellow('not usable')}: ${first}`])
    for (const line of others) lines.push(['', line])
  }
  for (const [name, value] of Object.entries(environment)) lines.push([name, printable(value)])
  return lines.map(([name, value]) => `${name.padEnd(12)} ${value}`).join('\n')
}
