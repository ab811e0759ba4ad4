import { Command } from 'commander'
import { print, printJson } from '../terminal/output.js'

export function doctorCommand(): Command {
  const command = new Command('doctor')
    .summary('what this machine can run, and why not')
    .description(
      'Show versions, the machine, and every backend: whether it can be used, or why not and how to fix that.',
    )
    .option('--json', 'the result as JSON')
  return command.action(async () => {
    const { examine } = await import('../doctor/examine.js')
    const { formatHealth } = await import('../doctor/report.js')
    const health = examine(process.env)
    if (command.opts<{ json?: boolean }>().json) printJson(health)
    else print(formatHealth(health))
    if (health.problem !== undefined) throw new Error(health.problem)
  })
}
