import { type Command, InvalidArgumentError, Option } from 'commander'

/** Options that every experiment has. */
export function addCommonOptions(command: Command): Command {
  return command
    .option('--model <dir>', 'a Hugging Face directory of a Llama (default: the stand-in)')
    .option(
      '--data <file>',
      'what to evaluate on: a text, or tokens (.bin, uint16) (default: samples.bin of the model)',
    )
    .option(
      '--calibration-data <file>',
      'what to calibrate on (default: the end of the data, behind what is evaluated)',
    )
    .option('--windows <n>', 'windows to evaluate', wholeNumber(1))
    .option('--window <tokens>', 'tokens a window', wholeNumber(2))
    .option('--calibration-windows <n>', 'windows to calibrate on, as long as the evaluated ones', wholeNumber(1))
    .addOption(new Option('--compute <type>', 'type of activations between ops').choices(['bf16', 'f32']))
    .addOption(
      new Option('--outliers <which>', 'on the model as it is, with injected outliers, or both').choices([
        'off',
        'on',
        'both',
      ]),
    )
    .addOption(
      new Option('--backend <name>', 'what to run on').choices(['auto', 'reference', 'cpu', 'cuda']).default('auto'),
    )
    .option('--threads <n>', 'threads of the cpu backend', wholeNumber(1))
    .option('--out <dir>', 'where results and the cache go', 'results')
}

function wholeNumber(least: number): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (!/^\d+$/.test(text) || value < least || !Number.isSafeInteger(value)) {
      throw new InvalidArgumentError(`Expected a whole number of at least ${least}.`)
    }
    return value
  }
}
