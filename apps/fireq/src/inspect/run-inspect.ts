import type { GlobalOptions } from '../options.js'
import { note, print, printJson } from '../terminal/output.js'
import { createProgress } from '../terminal/progress.js'
import { errorsAgainst, isSmoothed, recordedErrors } from './errors.js'
import { globMatcher } from './glob.js'
import { type Listing, openListing } from './listing.js'
import { formatInspection, type Inspection, inspectionJson } from './report.js'
import { type ValueStatistics, valueStatistics } from './statistics.js'

export interface InspectOptions extends GlobalOptions {
  readonly tensor?: string
  readonly against?: string
  readonly json?: boolean
}

export async function runInspect(path: string, options: InspectOptions, signal: AbortSignal): Promise<void> {
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

async function measure(listing: Listing, against: string, { quiet }: InspectOptions, signal: AbortSignal) {
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
