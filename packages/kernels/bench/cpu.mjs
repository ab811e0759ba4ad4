// The cpu backend against what this machine can do: `node packages/kernels/bench/cpu.mjs [--out file.json]` after a build.
// Decoding is bound by reading weights, a long prompt by multiply-adds; memory should be little more than the weights.
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { CpuBackend } from '@fireq/kernels'
import { config, kvSpec, layerWeights, llamaProgram, randomWeight, step } from './llama.mjs'

const { values: args } = parseArgs({
  options: {
    out: { type: 'string' },
    threads: { type: 'string' },
    isa: { type: 'string' },
    rounds: { type: 'string', default: '25' },
  },
})
const PAGE_SIZE = 16
const PAGES = 64
const PROMPT = 512
const targets = { decode: 0.6, prefill: 0.4, memory: 1.2 }

const backend = new CpuBackend({
  ...(args.threads && { threads: Number(args.threads) }),
  ...(args.isa && { isa: args.isa }),
})
console.log(`${cpus()[0]?.model}, ${backend.description}`)
await collectGarbage()
const residentBefore = resident()
const program = llamaProgram()
const [loadSeconds, weights] = await timed(() =>
  backend.loadWeights(program.weights, async (name) =>
    randomWeight(program.weights[name].shape, name.startsWith('layers.')),
  ),
)
const executable = await backend.compile(program, weights)
const kv = backend.createKvCache(kvSpec, { pages: PAGES, pageSize: PAGE_SIZE })
console.log(`${(weights.bytes / 1e6).toFixed(0)} MB of weights packed in ${loadSeconds.toFixed(1)} s`)

const ids = Array.from({ length: PROMPT }, (_, i) => (i * 7919) % config.vocabSize)
await executable.run(step([1], 1, PAGES), { kv })
await collectGarbage()
const residentDecoding = resident() - residentBefore

// Memory and clocks are shared with other machines and vary by the second: every round measures the peak, then what is
// compared with it, and the median of the rounds' ratios counts.
const bytesPerToken = checkpointBytes()
const decodes = []
for (let i = 0; i < Number(args.rounds); i++) {
  const { readBandwidth } = await backend.measurePeak()
  const seconds = []
  for (let n = 0; n < 12; n++) {
    seconds.push((await timed(() => executable.run(step([1], PROMPT + 1 + n, PAGES), { kv })))[0])
  }
  const achieved = bytesPerToken / median(seconds)
  decodes.push({ seconds: median(seconds), readBandwidth, achieved, ratio: achieved / readBandwidth })
}
const prefills = []
const prefillFlops = 2 * layerWeights() * PROMPT
for (let i = 0; i < Math.max(3, Number(args.rounds) / 5); i++) {
  const { multiplyAdd } = await backend.measurePeak()
  const [seconds] = await timed(() => executable.run(step(ids, PROMPT, PAGES), { kv }))
  prefills.push({ seconds, multiplyAdd, achieved: prefillFlops / seconds, ratio: prefillFlops / seconds / multiplyAdd })
}
const result = {
  date: new Date().toISOString(),
  commit: execFileSync('git', ['describe', '--always', '--dirty'], { encoding: 'utf8' }).trim(),
  command: ['node', ...process.argv.slice(1).map((arg) => arg.replace(process.cwd(), '.'))].join(' '),
  machine: { processor: cpus()[0]?.model, backend: backend.description, node: process.version },
  decode: {
    rounds: decodes.length,
    millisecondsPerToken: medianOf(decodes, 'seconds') * 1e3,
    weightGBs: medianOf(decodes, 'achieved') / 1e9,
    peakReadGBs: medianOf(decodes, 'readBandwidth') / 1e9,
    ratio: medianOf(decodes, 'ratio'),
    ratios: decodes.map(({ ratio }) => Number(ratio.toFixed(3))),
  },
  prefill: {
    rounds: prefills.length,
    tokens: PROMPT,
    tokensPerSecond: PROMPT / medianOf(prefills, 'seconds'),
    gflops: medianOf(prefills, 'achieved') / 1e9,
    peakGflops: medianOf(prefills, 'multiplyAdd') / 1e9,
    ratio: medianOf(prefills, 'ratio'),
    ratios: prefills.map(({ ratio }) => Number(ratio.toFixed(3))),
  },
  memory: {
    residentMB: residentDecoding / 1e6,
    weightsAndKvMB: (allWeightBytes() + kv.bytes) / 1e6,
    ratio: residentDecoding / (allWeightBytes() + kv.bytes),
  },
}
report(result)
if (args.out) writeFileSync(args.out, `${JSON.stringify(result, null, 2)}\n`)
executable.dispose()
kv.dispose()
weights.dispose()
backend.dispose()

/** Bytes of weights, as a checkpoint stores them, that a decoded token needs: all layers and the output head. */
function checkpointBytes() {
  return layerWeights() * (0.5 + 2 / config.groupSize) + config.vocabSize * config.hiddenSize * 2
}

function allWeightBytes() {
  return checkpointBytes() + config.vocabSize * config.hiddenSize * 2 // the embedding
}

/** The tensors that weights were packed from are garbage, which V8 would keep as long as there is room. */
async function collectGarbage() {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc')
  for (let i = 0; i < 3; i++) {
    collect()
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

function resident() {
  return process.memoryUsage().rss
}

async function timed(action) {
  const begin = performance.now()
  const value = await action()
  return [(performance.now() - begin) / 1e3, value]
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)]
}

function medianOf(rounds, key) {
  return median(rounds.map((round) => round[key]))
}

function report({ decode, prefill, memory }) {
  const line = (what, detail, ratio, target, atMost = false) => {
    const met = atMost ? ratio <= target : ratio >= target
    console.log(
      `${what.padEnd(9)}${detail.padEnd(66)}${ratio.toFixed(2)} (${atMost ? '≤' : '≥'} ${target}: ${met ? 'met' : 'missed'})`,
    )
  }
  const { millisecondsPerToken, weightGBs, peakReadGBs } = decode
  line(
    'decode',
    `${millisecondsPerToken.toFixed(1)} ms a token, ${weightGBs.toFixed(1)} of ${peakReadGBs.toFixed(1)} GB/s`,
    decode.ratio,
    targets.decode,
  )
  const { tokens, tokensPerSecond, gflops, peakGflops } = prefill
  line(
    'prefill',
    `${tokens} tokens, ${tokensPerSecond.toFixed(0)} a second, ${gflops.toFixed(0)} of ${peakGflops.toFixed(0)} GFLOP/s`,
    prefill.ratio,
    targets.prefill,
  )
  const { residentMB, weightsAndKvMB } = memory
  line(
    'memory',
    `${residentMB.toFixed(0)} MB resident for ${weightsAndKvMB.toFixed(0)} MB of weights and KV`,
    memory.ratio,
    targets.memory,
    true,
  )
}
