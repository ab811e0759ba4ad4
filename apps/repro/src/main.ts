#!/usr/bin/env node
import { Command } from 'commander'
import pc from 'picocolors'
import { addBenchCommand } from './bench/command.js'
import { addCommonOptions } from './cli/options.js'
import { type RunOptions, runExperiment } from './cli/run-experiment.js'
import { experiments } from './experiments/index.js'

const INTERRUPTED = 130
const USAGE = 2

const interrupt = new AbortController()
process.on('SIGINT', () => {
  if (interrupt.signal.aborted) process.exit(INTERRUPTED) // a second time: now
  interrupt.abort(new Error('interrupted'))
})

const program = new Command('fireq-repro')
  .description("FireQ's experiments by name: each prints its tables and writes JSON, Markdown and one HTML page.")
  .showSuggestionAfterError()
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : USAGE))

program
  .command('list')
  .description('the experiments')
  .action(() => {
    const width = Math.max(...experiments.map(({ name }) => name.length))
    for (const { name, summary } of experiments) process.stdout.write(`${name.padEnd(width)}  ${summary}\n`)
  })

for (const experiment of experiments) {
  const command = addCommonOptions(program.command(experiment.name).description(experiment.summary))
  experiment.options?.(command)
  command.action((options: RunOptions) => runExperiment(experiment, options, interrupt.signal))
}

addBenchCommand(program.command('bench').description('times of kernels'), interrupt.signal)

try {
  await program.parseAsync()
} catch (error) {
  if (interrupt.signal.aborted) {
    const advice = process.argv[2] === 'bench' ? '' : ' The same command goes on from what is done.'
    process.stderr.write(`Interrupted.${advice}\n`)
    process.exitCode = INTERRUPTED
  } else {
    const message = error instanceof Error ? error.message : String(error)
    process.stderr.write(`${pc.red('error:')} ${message}\n`)
    process.exitCode = 1
  }
}
