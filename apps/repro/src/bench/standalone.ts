import { Command } from 'commander'
import { addBenchCommand } from './command.js'

// `fireq-repro bench …` alone, for a bundle (scripts/gpu-bundle.mjs).

const interrupt = new AbortController()
process.on('SIGINT', () => {
  if (interrupt.signal.aborted) process.exit(130)
  interrupt.abort(new Error('interrupted'))
})
const program = new Command('fireq-repro')
addBenchCommand(program.command('bench'), interrupt.signal)
await program.parseAsync()
