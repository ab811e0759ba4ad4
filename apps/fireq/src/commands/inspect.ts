import { Command } from 'commander'
import type { InspectOptions } from '../inspect/run-inspect.js'
import { interruptible } from '../terminal/interrupt.js'

const HELP = `
Errors are ‖W − Ŵ‖ / ‖W‖: those recorded when the model was quantized, against the weights that smoothing left; or with
--against those to the tensors of another model, whatever the reason that they differ.

Examples:
  $ fireq inspect model.safetensors
  $ fireq inspect 1B-fireq
  $ fireq inspect 1B-fireq --tensor "*.3.mlp.*"              values of some tensors
  $ fireq inspect 1B-rtn --against Llama-3.2-1B --json`

export function inspectCommand(): Command {
  const command = new Command('inspect')
    .summary('what is in a safetensors file or a model')
    .description('List tensors, types, shapes and sizes; of a quantized model bits per weight and error by layer too.')
    .argument('<path>', 'safetensors file, or directory of a model')
    .option('--tensor <glob>', 'only tensors whose names match (* is anything), with statistics of their values')
    .option('--against <dir>', 'measure errors against this model or file')
    .option('--json', 'the result as JSON')
    .addHelpText('after', HELP)
  return command.action(async (path: string) => {
    const { runInspect } = await import('../inspect/run-inspect.js')
    const options = command.optsWithGlobals<InspectOptions>()
    await interruptible((signal) => runInspect(path, options, signal))
  })
}
