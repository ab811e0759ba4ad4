import { availableParallelism, cpus, totalmem } from 'node:os'
import { Command } from 'commander'
import { formatBytes } from '../terminal/format.js'
import { print, printJson } from '../terminal/output.js'
import { version } from '../version.js'

export function doctorCommand(): Command {
  const command = new Command('doctor')
    .summary('what this machine can run, and why not')
    .description(
      'Show versions, the machine, and every backend: whether it can be used, or why not and how to fix that.',
    )
    .option('--json', 'the result as JSON')
  return command.action(async () => {
    const report = {
      fireq: version,
      node: process.version,
      cpu: cpus()[0]?.model,
      cores: availableParallelism(),
      memory: totalmem(),
    }
    if (command.opts<{ json?: boolean }>().json) printJson(report)
    else print(JSON.stringify(report) + formatBytes(report.memory))
  })
}
