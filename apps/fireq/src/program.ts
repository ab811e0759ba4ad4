import { Command } from 'commander'
import { doctorCommand } from './commands/doctor.js'
import { evalCommand } from './commands/eval.js'
import { generateCommand } from './commands/generate.js'
import { inspectCommand } from './commands/inspect.js'
import { quantizeCommand } from './commands/quantize.js'
import { version } from './version.js'

const STORY = `
A walk through, on any Llama directory as Hugging Face has them (config.json, *.safetensors, tokenizer):
  $ fireq doctor                                             what this machine can run
  $ fireq inspect Llama-3.2-1B                               what is in the model
  $ fireq quantize Llama-3.2-1B --out 1B-fireq --calibration-data text.txt --dry-run
  $ fireq quantize Llama-3.2-1B --out 1B-fireq --calibration-data text.txt
  $ fireq inspect 1B-fireq                                   bits per weight, error by layer
  $ fireq eval 1B-fireq --baseline Llama-3.2-1B --data wiki.test.raw
  $ fireq generate 1B-fireq "Once upon a time" --stats

Results go to stdout, everything else to stderr; --json makes results JSON.

Exit status: 0 done, 1 failed, 2 command line not understood, 130 interrupted.

Environment: FIREQ_BACKEND, FIREQ_THREADS and FIREQ_ISA choose as --backend and --threads do (fireq doctor shows them);
NO_COLOR=1 turns colors off.`

export function createProgram(): Command {
  const program = new Command('fireq')
    .description(
      'Quantize Llama models the FireQ way (INT4 weights and KV cache, FP8 activations), evaluate, run and inspect them.',
    )
    .version(`fireq ${version}`, '-V, --version', 'show the version')
    .option('--verbose', 'show where an error came from')
    .option('--quiet', 'show neither progress nor notes')
    .helpOption('-h, --help', 'show help; fireq <command> --help for a command')
    .addHelpText('after', STORY)
  const commands = [quantizeCommand(), evalCommand(), generateCommand(), inspectCommand(), doctorCommand()]
  for (const command of commands) program.addCommand(command.helpOption('-h, --help', 'show help'))
  for (const command of [program, ...commands]) configure(command)
  return program
}

/** Errors are one line and never end the process here; help shows the options of `fireq` itself too. */
function configure(command: Command): void {
  command
    .exitOverride()
    .showSuggestionAfterError()
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      outputError: (text, write) => {
        const line = text
          .replace(/^error: /, '')
          .trim()
          .replace(/\s*\n\s*/g, ' ')
        write(`fireq: ${line}\n`)
      },
    })
}
