import { CudaDevice, cudaStatus, readBandwidth } from '@fireq/kernels'
import { type Command, InvalidArgumentError } from 'commander'
import pc from 'picocolors'
import { createProgress } from '../terminal/progress.js'
import { terminalTable } from '../terminal/table.js'
import { benchAttention, benchStore } from './attention.js'
import { AttentionBaselines } from './attention-baselines.js'
import { FORMATS, type Format } from './attention-cache.js'
import {
  type AttentionResult,
  attentionTables,
  describeAttentionRun,
  writeAttentionResult,
} from './attention-report.js'
import {
  type AttentionShape,
  DECODES,
  equalLengths,
  HEADS,
  type HeadCounts,
  MIX_NAMES,
  MIXES,
  PREFILLS,
  STORES,
  traceShape,
} from './attention-shapes.js'
import { startBaselines } from './baseline-process.js'
import { copyBandwidth } from './copy-bandwidth.js'
import { listOption, namesOf, wholeNumber, wholeNumbers } from './options.js'
import { provenanceOf } from './provenance.js'

interface AttentionOptions {
  readonly heads: readonly HeadCounts[]
  readonly prefill: readonly AttentionShape[]
  readonly decode: readonly AttentionShape[]
  readonly mixes: readonly (typeof MIX_NAMES)[number][]
  readonly store: readonly number[]
  readonly formats: readonly Format[]
  readonly traces?: string
  readonly traceBatch: number
  readonly rounds: number
  readonly baselines: boolean
  readonly python: string
  readonly out: string
}

/** `bench attention` */
export function addAttentionBench(bench: Command, signal: AbortSignal): void {
  bench
    .command('attention')
    .description(
      "attention over an INT4 cache beside PyTorch's cuDNN and flash attention in BF16 (if python has it), on a GPU",
    )
    .addOption(listOption('--heads <H/Hkv,…>', 'heads of queries and of keys and values', headList, HEADS, typedHeads))
    .addOption(
      listOption('--prefill <NxM,…>', 'sequences × tokens, or none', shapeList('prefill'), PREFILLS, typedShape),
    )
    .addOption(
      listOption(
        '--decode <NxM,…>',
        'sequences × tokens in the cache, or none',
        shapeList('decode'),
        DECODES,
        typedShape,
      ),
    )
    .addOption(
      listOption(
        '--mixes <names>',
        `and for mixes of lengths as services had them: of ${MIX_NAMES.join(', ')}, or none`,
        (text) => (text === 'none' ? [] : namesOf(MIX_NAMES)(text)),
        MIX_NAMES,
      ),
    )
    .option('--traces <file>', 'and from a trace of requests (CSV or JSON lines, .gz too)')
    .option('--trace-batch <N>', 'sequences of that mix', wholeNumber, 64)
    .addOption(
      listOption(
        '--store <M,…>',
        'tokens for the store kernel, or none',
        (text) => (text === 'none' ? [] : wholeNumbers(text)),
        STORES,
      ),
    )
    .addOption(listOption('--formats <names>', `of ${FORMATS.join(', ')}`, namesOf(FORMATS), FORMATS))
    .option('--rounds <n>', 'turns of each contestant; the median counts', wholeNumber, 7)
    .option('--no-baselines', 'our kernels only')
    .option('--python <command>', 'the python that has PyTorch', 'python3')
    .option('--out <dir>', 'where results go', 'results')
    .action((options: AttentionOptions) => runAttention(options, signal))
}

async function runAttention(options: AttentionOptions, signal: AbortSignal): Promise<void> {
  const traced = options.traces === undefined ? [] : [await traceShape(options.traces, options.traceBatch)]
  const status = cudaStatus()
  if (!status.usable) {
    process.stdout.write(`skipped: no GPU: ${status.problem}\n`)
    return
  }
  const began = new Date()
  const progress = createProgress()
  const { heads, formats, rounds, store: stores } = options
  const mixes = [...options.mixes.map((name) => MIXES[name]), ...traced]
  const settings = { heads, formats, rounds, stores, shapes: [...options.prefill, ...options.decode, ...mixes] }
  using device = CudaDevice.open()
  using stream = device.createStream()
  let result: AttentionResult
  const { baselines, about } = await startBaselines(options.baselines, () => AttentionBaselines.start(options.python))
  try {
    if ('notRun' in about) progress.note(`baselines not run: ${about.notRun}`)
    const readBytesPerSecond = await readBandwidth(device, stream)
    const copyBytesPerSecond = await copyBandwidth(stream, rounds)
    const stored = await benchStore(device, stream, settings, progress, signal)
    const found = await benchAttention(device, stream, baselines, settings, progress, signal)
    result = {
      benchmark: 'attention',
      ...(await provenanceOf(device, began)),
      ...{ baselines: about, rounds, readBytesPerSecond, copyBytesPerSecond, ...found, stores: stored },
    }
  } finally {
    progress.stop()
    baselines?.[Symbol.dispose]()
  }
  const lines = attentionTables(result).flatMap((table) => [
    '',
    pc.bold(table.caption!.replaceAll('**', '')),
    terminalTable(table),
  ])
  const files = await writeAttentionResult(result, options.out)
  process.stdout.write(`${[...lines, '', pc.dim(describeAttentionRun(result)), '', ...files].join('\n')}\n`)
}

const typedHeads = ({ heads, keyHeads }: HeadCounts): string => `${heads}/${keyHeads}`

function headList(text: string): HeadCounts[] {
  return text.split(',').map((pair) => {
    const [, heads, keyHeads] = (/^(\d+)\/(\d+)$/.exec(pair) ?? []).map(Number)
    if (!heads || !keyHeads || heads % keyHeads !== 0 || heads / keyHeads > 16) {
      throw new InvalidArgumentError('Expected H/Hkv,… with 1 to 16 query heads for each key-value head.')
    }
    return { heads, keyHeads }
  })
}

const typedShape = ({ lengths }: AttentionShape): string => `${lengths.length}x${lengths[0]}`

function shapeList(kind: AttentionShape['kind']): (text: string) => AttentionShape[] {
  return (text) => {
    if (text === 'none') return []
    return text.split(',').map((shape) => {
      const [, batch, length] = (/^(\d+)x(\d+)$/.exec(shape) ?? []).map(Number)
      if (!batch || !length || batch > 65535 || length > 2 ** 24) {
        throw new InvalidArgumentError('Expected NxM,…: sequences and tokens, each at least 1; or none.')
      }
      return equalLengths(kind, batch, length)
    })
  }
}
