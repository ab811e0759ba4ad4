import { Command } from 'commander'
import { errorsAgainst, isSmoothed, recordedErrors } from '../inspect/errors.js'
import { globMatcher } from '../inspect/glob.js'
import { type Listing, openListing } from '../inspect/listing.js'
import { formatInspection, type Inspection, inspectionJson } from '../inspect/report.js'
import { type ValueStatistics, valueStatistics } from '../inspect/statistics.js'
import type { GlobalOptions } from '../options.js'
import { interruptible } from '../terminal/interrupt.js'
import { note, print, printJson } from '../terminal/output.js'
import { createProgress } from '../terminal/progress.js'

interface Options extends GlobalOptions {
  readonly tensor?: string
  readonly against?: string
  readonly json?: boolean
}

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
    const options = command.optsWithGlobals<Options>()
    await interruptible((signal) => inspect(path, options, signal))
  })
}

async function inspect(path: string, options: Options, signal: AbortSignal): Promise<void> {
  await using listing = await openListing(path)
  const { tensor: glob, against } = options
  const tensors = glob === undefined ? listing.tensors : listing.tensors.filter(({ name }) => globMatcher(glob)(name))
  if (glob !== undefined && tensors.length === 0) {
    const example = listing.tensors[0]?.name
    throw new Error(
      `Expected a tensor that matches ${glob} but none of ${listing.tensors.length} does${example ? `, such as ${example}` : ''}`,
    )
  }
  const shown: Listing = { ...listing, tensors }
  const errors = against === undefined ? recordedErrors(listing) : await measure(shown, against, options, signal)
  const inspection: Inspection = {
    listing,
    tensors,
    ...(glob !== undefined && { statistics: await statisticsOf(shown, signal) }),
    ...(errors && { errors, errorsFrom: against ?? 'the weights before rounding' }),
  }
  if (options.json) printJson(inspectionJson(inspection))
  else print(formatInspection(inspection))
  if (listing.problem) throw listing.problem
  if (against !== undefined && isSmoothed(listing)) {
    note('Note: smoothing scaled weights of this model on purpose, and these errors contain that.', options)
  }
  if (!errors && listing.model?.quantization) {
    note('Note: the model has no record of its errors; --against <unquantized model> measures them.', options)
  }
}

async function measure(listing: Listing, against: string, { quiet }: Options, signal: AbortSignal) {
  await using original = await openListing(against)
  const progress = createProgress({ quiet })
  try {
    return await errorsAgainst(listing, original, (name, fraction) => progress.update(fraction, name), signal)
  } finally {
    progress.stop()
  }
}

async function statisticsOf({ tensors }: Listing, signal: AbortSignal): Promise<Map<string, ValueStatistics>> {
  const statistics = new Map<string, ValueStatistics>()
  for (const tensor of tensors) {
    const values = await valueStatistics(tensor, signal)
    if (values) statistics.set(tensor.name, values)
  }
  return statistics
}
