import { Command, Option } from 'commander'
import type { EvalOptions } from '../evaluation/run-eval.js'
import { wholeNumber, withBackendOptions, withPlanOptions } from '../options.js'
import { interruptible } from '../terminal/interrupt.js'
import { print, printJson } from '../terminal/output.js'

const HELP = `
Windows are GPTQ's: the text's tokens cut one after another, no overlap, the remainder dropped.

Data: a file ending in .bin holds token ids (16 bits little endian, or 32 where the vocabulary is larger than 65536);
any other is text in UTF-8. Framing "hf" joins lines as papers do with WikiText-2 (the default for files ending in .raw);
"file" takes the text as it is (the default for others). Perplexities of different framings can't be compared.

Examples:
  $ fireq eval Llama-3.2-1B --data wiki.test.raw
  $ fireq eval 1B-fireq --baseline Llama-3.2-1B --data wiki.test.raw --max-windows 10
  $ fireq eval 1B-fireq --data wiki.test.raw --queries none --kv bf16 --json`

export function evalCommand(): Command {
  const command = new Command('eval')
    .summary('perplexity, and KL divergence from the unquantized model')
    .description('Measure how well a model predicts a text, and how far it is from the unquantized one.')
    .argument('<dir>', 'model directory, quantized or not')
    .requiredOption('--data <file>', 'text or tokens to predict')
    .option('--baseline <dir>', 'unquantized model: adds KL divergence and top-1 agreement')
    .option('--window <tokens>', 'tokens a window (default: 2048, or the context if that is less)', wholeNumber(2))
    .option('--max-windows <n>', 'only the first windows', wholeNumber(1))
    .addOption(new Option('--framing <kind>', 'how lines become one text').choices(['hf', 'file']))
  withPlanOptions(withBackendOptions(command))
  return command
    .option('--json', 'the result as JSON')
    .addHelpText('after', HELP)
    .action(async (dir: string) => {
      const options = command.optsWithGlobals<EvalOptions>()
      const { runEval } = await import('../evaluation/run-eval.js')
      const { formatResult } = await import('../evaluation/report.js')
      const result = await interruptible((signal) => runEval(dir, options, signal))
      if (options.json) printJson(result)
      else print(formatResult(result))
    })
}
