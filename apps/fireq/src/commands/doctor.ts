import { Command } from 'commander'
import { examine, type Health } from '../doctor/examine.js'
import { formatBytes, printable } from '../terminal/format.js'
import { colorsFor, print, printJson } from '../terminal/output.js'

export function doctorCommand(): Command {
  const command = new Command('doctor')
    .summary('what this machine can run, and why not')
    .description(
      'Show versions, the machine, and every backend: whether it can be used, or why not and how to fix that.',
    )
    .option('--json', 'the result as JSON')
  return command.action(() => {
    const health = examine(process.env)
    if (command.opts<{ json?: boolean }>().json) printJson(health)
    else print(format(health))
    if (health.problem !== undefined) throw new Error(health.problem)
  })
}

function format({
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
