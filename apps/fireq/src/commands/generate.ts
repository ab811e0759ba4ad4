import { Command } from 'commander'
import type { GenerateOptions } from '../generation/run-generate.js'
import { decimalNumber, wholeNumber, withBackendOptions, withPlanOptions } from '../options.js'
import { interruptible } from '../terminal/interrupt.js'

const HELP = `
The continuation goes to stdout as it comes, statistics to stderr. Ctrl-C stops.

Examples:
  $ fireq generate 1B-fireq "Once upon a time"
  $ fireq generate 1B-fireq "Dear Sir," --temperature 0.8 --top-p 0.95 --seed 1 --stats
  $ fireq generate 1B-fireq - < prompt.txt > continuation.txt`

export function generateCommand(): Command {
  const command = new Command('generate')
    .summary('continue a prompt')
    .description('Continue a prompt, token by token.')
    .argument('<dir>', 'model directory, quantized or not')
    .argument('<prompt>', 'text to continue; - reads it from stdin')
    .option('--max-tokens <n>', 'tokens to generate at the most', wholeNumber(0), 128)
    .option(
      '--temperature <t>',
      '0 takes the likeliest token (default: 0)',
      decimalNumber('a number ≥ 0', (v) => v >= 0),
    )
    .option('--top-k <n>', 'draw among the n likeliest; 0 for all (default: 0)', wholeNumber(0, 2 ** 31 - 1))
    .option(
      '--top-p <p>',
      'draw among the likeliest that sum to p (default: 1)',
      decimalNumber('a number in (0, 1]', inUnit),
    )
    .option('--seed <n>', 'fixes what is drawn (default: another one every time)', wholeNumber(0))
    .option('--stats', 'show speed and memory on stderr')
  withPlanOptions(withBackendOptions(command))
  return command.addHelpText('after', HELP).action(async (dir: string, prompt: string) => {
    const { readStdin, runGenerate } = await import('../generation/run-generate.js')
    const options = command.optsWithGlobals<GenerateOptions>()
    const text = prompt === '-' ? await readStdin() : prompt
    await interruptible((signal) => runGenerate(dir, text, options, signal))
  })
}

const inUnit = (v: number): boolean => v > 0 && v <= 1
