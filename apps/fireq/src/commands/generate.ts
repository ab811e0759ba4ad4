import { openModel } from '@fireq/formats'
import { LanguageModel, loadTokenizer } from '@fireq/model'
import { Command } from 'commander'
import { openBackend } from '../backend.js'
import { decodeText } from '../data/files.js'
import { checkVocabulary } from '../data/load-tokens.js'
import {
  type BackendOptions,
  decimalNumber,
  type GlobalOptions,
  type PlanOptions,
  planOverrides,
  wholeNumber,
  withBackendOptions,
  withPlanOptions,
} from '../options.js'
import { formatBytes, formatSeconds, printable } from '../terminal/format.js'
import { interruptible } from '../terminal/interrupt.js'
import { note } from '../terminal/output.js'

interface Options extends BackendOptions, PlanOptions, GlobalOptions {
  readonly maxTokens: number
  readonly temperature?: number
  readonly topK?: number
  readonly topP?: number
  readonly seed?: number
  readonly stats?: boolean
}

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
    const options = command.optsWithGlobals<Options>()
    const text = prompt === '-' ? await readStdin() : prompt
    await interruptible((signal) => generate(dir, text, options, signal))
  })
}

const inUnit = (v: number): boolean => v > 0 && v <= 1

async function generate(dir: string, text: string, options: Options, signal: AbortSignal): Promise<void> {
  await using source = await openModel(dir)
  const { vocabSize, maxPositionEmbeddings } = source.config
  const tokenizer = await loadTokenizer(dir)
  const prompt = tokenizer.encode(text, { addBos: tokenizer.bosId !== undefined })
  checkVocabulary(prompt, { dir, vocabSize })
  using backend = openBackend(options)
  const { maxTokens, temperature, topK, topP, seed } = options
  const kvTokens = Math.min(prompt.length + maxTokens, maxPositionEmbeddings)
  const began = performance.now()
  using model = await LanguageModel.load(source, backend, { plan: planOverrides(options), kvTokens, signal })
  const loaded = performance.now()

  const show = process.stdout.isTTY ? (piece: string) => printable(piece, { keep: '\n\t' }) : (piece: string) => piece
  const decoder = tokenizer.stream({ continuation: true, skipSpecial: true })
  const stats = { tokens: 0, first: 0, last: loaded }
  const tokens = model.generate(prompt, { maxTokens, temperature, topK, topP, seed, signal })
  let reason: string
  try {
    for (;;) {
      const { done, value } = await tokens.next()
      if (done) {
        reason = value
        break
      }
      stats.last = performance.now()
      if (stats.tokens++ === 0) stats.first = stats.last
      process.stdout.write(show(decoder.push(value)))
    }
  } finally {
    if (stats.tokens > 0) process.stdout.write(`${show(decoder.flush())}\n`)
  }
  if (!options.stats) return
  const [prefill, decode] = [(stats.first - loaded) / 1000, (stats.last - stats.first) / 1000]
  const speed = (count: number, seconds: number) =>
    count > 0 && seconds > 0 ? `, ${(count / seconds).toFixed(1)} tokens/s` : ''
  const lines = [
    `load     ${formatSeconds((loaded - began) / 1000)}, ${formatBytes(model.weightBytes)} weights, ${formatBytes(model.kvBytes)} KV cache`,
    ...(stats.tokens > 0
      ? [`prompt   ${prompt.length} tokens in ${formatSeconds(prefill)}${speed(prompt.length, prefill)}`]
      : []),
    `decode   ${stats.tokens} tokens in ${formatSeconds(decode)}${speed(stats.tokens - 1, decode)}`,
    `ended    ${reason === 'stop' ? 'the model ended the text' : 'at --max-tokens or the end of the context'}`,
  ]
  note(lines.join('\n'))
}

async function readStdin(): Promise<string> {
  const chunks: Uint8Array[] = []
  for await (const chunk of process.stdin) chunks.push(chunk as Uint8Array)
  return decodeText('stdin', Buffer.concat(chunks))
}
