import { Command } from 'commander'
import { withBackendOptions } from '../options.js'
import type { QuantizeCommandOptions } from '../quantize/options.js'
import { parseSetting } from '../quantize/settings.js'
import { interruptible } from '../terminal/interrupt.js'

const HELP = `
Recipes: rtn, fireq, fireq-llama3-8b, fireq-vllm, or a JSON file. --set changes a field of one; the value is JSON or text.

A recipe that looks at activations (fireq does) runs the model on calibration text, in windows as the recipe says. Without
--calibration-data it is read from calibration.txt, calibration.bin or samples.bin in the model directory, and said so;
where there is none, nothing is done. Files ending in .bin hold token ids, as for fireq eval.

The output appears when it is complete. Until then it grows in <out>.partial: after Ctrl-C, kill -9 or a power cut the same
command goes on from there, and the result is the same to the bit.

Examples:
  $ fireq quantize Llama-3.2-1B --out 1B-rtn --recipe rtn
  $ fireq quantize Llama-3.2-1B --out 1B-fireq --calibration-data text.txt --dry-run
  $ fireq quantize Llama-3.2-1B --out 1B-fireq --calibration-data text.txt
  $ fireq quantize Llama-3.2-1B --out 1B-64 --recipe rtn --set weights.groupSize=64 activations=none
  $ fireq quantize Llama-3.2-1B --out 1B-down --recipe rtn --set 'overrides=[{"match":"**.down_proj.weight","skip":true}]'`

export function quantizeCommand(): Command {
  const command = new Command('quantize')
    .summary('turn a Hugging Face model into a quantized one')
    .description('Quantize a Llama directory from Hugging Face, layer by layer, in bounded memory.')
    .argument('<hf-dir>', 'model directory: config.json, *.safetensors, tokenizer')
    .requiredOption('--out <dir>', 'directory to write')
    .option('--recipe <name|file>', 'how to quantize', 'fireq')
    .option('--set <key=value...>', 'change a field of the recipe', parseSetting)
    .option('--calibration-data <file>', 'text or tokens to calibrate on')
  withBackendOptions(command)
  return command
    .option('--dry-run', 'say what would be done and what is wrong, and do nothing')
    .option('--overwrite', 'replace a model at --out, or an unfinished other one')
    .option('--json', 'the result as JSON')
    .addHelpText('after', HELP)
    .action(async (dir: string) => {
      const { runQuantize } = await import('../quantize/run-quantize.js')
      const options = command.optsWithGlobals<QuantizeCommandOptions>()
      let begun = false
      const resume = () =>
        begun ? `what is done is kept in ${options.out}.partial; the same command resumes` : undefined
      const begin = () => {
        begun = true
      }
      await interruptible((signal) => runQuantize(dir, options, signal, begin), resume)
    })
}
