import { openModel } from '@fireq/formats'
import { LanguageModel, loadTokenizer } from '@fireq/model'
import { openBackend } from '../backend.js'
import { decodeText } from '../data/files.js'
import { checkVocabulary } from '../data/load-tokens.js'
import { type BackendOptions, type GlobalOptions, type PlanOptions, planOverrides } from '../options.js'
import { formatBytes, formatSeconds, printable } from '../terminal/format.js'
import { note } from '../terminal/output.js'

export interface GenerateOptions extends BackendOptions, PlanOptions, GlobalOptions {
  readonly maxTokens: number
  readonly temperature?: number
  readonly topK?: number
  readonly topP?: number
  readonly seed?: number
  readonly stats?: boolean
}

export async function runGenerate(
  dir: string,
  text: string,
  options: GenerateOptions,
  signal: AbortSignal,
): Promise<void> {
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
  // An instruct model ends its turn with a token that not every config.json names: the tokenizer knows them all.
  const stop = [...new Set([...model.config.eosTokenIds, ...tokenizer.eosIds])]
  const tokens = model.generate(prompt, { maxTokens, temperature, topK, topP, seed, stop, signal })
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

export async function readStdin(): Promise<string> {
  const chunks: Uint8Array[] = []
  for await (const chunk of process.stdin) chunks.push(chunk as Uint8Array)
  return decodeText('stdin', Buffer.concat(chunks))
}
