import { CudaDevice, cudaStatus, readBandwidth } from '@fireq/kernels'
import { type Command, InvalidArgumentError, Option } from 'commander'
import pc from 'picocolors'
import { createProgress } from '../terminal/progress.js'
import { terminalTable } from '../terminal/table.js'
import { addAttentionBench } from './attention-command.js'
import { startBaselines } from './baseline-process.js'
import { Baselines } from './baselines.js'
import { benchFeedForwards } from './feed-forward.js'
import { benchGemm, type GemmSettings } from './gemm.js'
import { listOption, namesOf, wholeNumber, wholeNumbers } from './options.js'
import { provenanceOf } from './provenance.js'
import {
  describeMachine,
  feedForwardTables,
  type GemmResult,
  ratioTable,
  shapeTables,
  writeGemmResult,
} from './report.js'
import { feedForwardsOf, type GemmShape, LAYERS, type Layer, MODEL_NAMES, shapesOf, TOKENS } from './shapes.js'

interface GemmOptions {
  readonly models: readonly string[]
  readonly layers: readonly Layer[]
  readonly shapes?: readonly GemmShape[]
  readonly tokens: readonly number[]
  readonly rounds: number
  readonly codes: GemmSettings['codes']
  readonly baselines: boolean
  readonly feedForwards: boolean
  readonly python: string
  readonly out: string
}

/** `bench gemm` and `bench attention` */
export function addBenchCommand(bench: Command, signal: AbortSignal): void {
  addAttentionBench(bench, signal)
  bench
    .command('gemm')
    .description(
      "INT4 × FP8 linear layers beside cuBLASLt's FP8 and BF16 (through PyTorch, if python has it), on a GPU",
    )
    .addOption(listOption('--models <names>', `of ${MODEL_NAMES.join(', ')}`, namesOf(MODEL_NAMES), MODEL_NAMES))
    .addOption(listOption('--layers <names>', `of ${LAYERS.join(', ')}`, namesOf(LAYERS), LAYERS))
    .option('--shapes <NxK,…>', 'these weights instead', shapeList)
    .addOption(listOption('--tokens <M,…>', 'numbers of tokens', wholeNumbers, TOKENS))
    .option('--rounds <n>', 'turns of each contestant; the median counts', wholeNumber, 7)
    .addOption(new Option('--codes <range>', 'sym: −7…7, full: −8…7').choices(['sym', 'full']).default('sym'))
    .option('--no-baselines', 'our kernels only')
    .option('--no-feed-forwards', "not the models' feed-forward networks")
    .option('--python <command>', 'the python that has PyTorch', 'python3')
    .option('--out <dir>', 'where results go', 'results')
    .action((options: GemmOptions) => runGemm(options, signal))
}

async function runGemm(options: GemmOptions, signal: AbortSignal): Promise<void> {
  const status = cudaStatus()
  if (!status.usable) {
    process.stdout.write(`skipped: no GPU: ${status.problem}\n`)
    return
  }
  const began = new Date()
  const progress = createProgress()
  const shapes = options.shapes ?? shapesOf(options.models, options.layers)
  const settings = { shapes, tokens: options.tokens, rounds: options.rounds, codes: options.codes }
  using device = CudaDevice.open()
  using stream = device.createStream()
  let result: GemmResult
  const { baselines, about } = await startBaselines(options.baselines, () => Baselines.start(options.python))
  try {
    if ('notRun' in about) progress.note(`baselines not run: ${about.notRun}`)
    const readBytesPerSecond = await readBandwidth(device, stream)
    const rows = await benchGemm(device, stream, baselines, settings, progress, signal)
    const networks = options.feedForwards && options.shapes === undefined ? feedForwardsOf(options.models) : []
    const feedForwards = await benchFeedForwards(device, stream, networks, settings, progress, signal)
    const { rounds, codes } = settings
    result = {
      benchmark: 'gemm',
      ...(await provenanceOf(device, began)),
      ...{ baselines: about, codes, rounds, readBytesPerSecond, rows, feedForwards },
    }
  } finally {
    progress.stop()
    baselines?.[Symbol.dispose]()
  }
  const tables = [...shapeTables(result), ...feedForwardTables(result.feedForwards), ratioTable(result.rows)]
  const lines = tables.flatMap((table) => ['', pc.bold(table.caption!.replaceAll('**', '')), terminalTable(table)])
  const files = await writeGemmResult(result, options.out)
  process.stdout.write(`${[...lines, '', pc.dim(describeMachine(result)), '', ...files].join('\n')}\n`)
}

function shapeList(text: string): GemmShape[] {
  return text.split(',').map((shape) => {
    const [, n, k] = (/^(\d+)x(\d+)$/.exec(shape) ?? []).map(Number)
    if (!n || !k || n % 16 !== 0 || k % 128 !== 0) {
      throw new InvalidArgumentError('Expected NxK,… with N a multiple of 16 and K of 128.')
    }
    return { n, k, layers: [`${n} × ${k}`] }
  })
}
