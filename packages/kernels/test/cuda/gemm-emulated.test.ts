import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'vitest'
import { compile, describeEmulated, emulated, kernels, run } from './emulation.js'

// The GEMMs on the host; the programs compare with the exact sum themselves.

/** One that is built, as its .cu file says, with all that is chosen at compile time. */
interface Instance {
  readonly name: string
  readonly source: string
  readonly defines: Readonly<Record<string, string>>
}

/** What follows `begin` in each line that begins so, up to the bracket, at commas. */
function instantiations(file: string, begin: string): string[][] {
  const lines = readFileSync(join(kernels, file), 'utf8').split('\n')
  const found = lines.filter((line) => line.startsWith(begin) && line.endsWith(')'))
  if (found.length === 0) throw new Error(`Expected a line that begins with ${begin} in ${file}`)
  return found.map((line) =>
    line
      .slice(begin.length, -1)
      .split(',')
      .map((argument) => argument.trim()),
  )
}

const epilogues = ['Epilogue::kLinear', 'Epilogue::kSiluMul']
const codes = ['Codes::kSymmetric', 'Codes::kFull']
const scales = ['ScaleType::kBf16', 'ScaleType::kFp32']

/** All combinations of one of each. */
const product = (...sets: readonly (readonly string[])[]): string[][] =>
  sets.reduce<string[][]>((all, set) => all.flatMap((some) => set.map((one) => [...some, one])), [[]])

/** Kernels whose clusters cut K: config<what the .cu says, a kind>. */
function split(file: string, begin: string, kernel: string, config: string, kinds: readonly string[][]): Instance[] {
  return instantiations(`${file}.cu`, begin).flatMap(([name, ...args]) =>
    kinds.map((kind) => ({
      name: [name, ...kind].join(' '),
      source: 'gemm_split.cpp',
      defines: { HEADER: `"${file}.cuh"`, KERNEL: kernel, CONFIG: `${config}<${[...args, ...kind].join(',')}>` },
    })),
  )
}

const small = split(
  'gemm_small',
  'FIREQ_GEMM_SMALL_KINDS(',
  'gemmSmall',
  'GemmSmallConfig',
  product(epilogues, codes, scales),
)
const medium = split(
  'gemm_medium',
  'FIREQ_GEMM_MEDIUM_KINDS(',
  'gemmMedium',
  'GemmMediumConfig',
  product(epilogues, codes, scales),
)
const large = instantiations('gemm_large.cu', 'FIREQ_GEMM_LARGE_KINDS(').flatMap(
  ([name, parts, depth, tokens, stages]) =>
    product(codes, scales, epilogues).map(([code, scale, epilogue]) => ({
      name: [name, code, scale, epilogue].join(' '),
      source: 'gemm_large.cpp',
      defines: {
        CONFIG: `GemmLargeConfig<${[parts, depth, tokens, 2, stages, 8, code, scale].join(',')}>`,
        EPILOGUE: epilogue!.replace('Epilogue::', ''),
      },
    })),
)
const bf16 = split(
  'gemm_w4a16',
  'FIREQ_W4A16_KINDS(FIREQ_W4A16, ',
  'gemmW4a16',
  'GemmW4a16Config',
  product(epilogues, scales),
)
const bf16Large = instantiations('gemm_w4a16.cu', 'FIREQ_W4A16_KINDS(FIREQ_W4A16_LARGE, ').flatMap(([name, ...args]) =>
  product(epilogues, scales).map((kind) => ({
    name: [name, ...kind].join(' '),
    source: 'gemm_w4a16_large.cpp',
    defines: { CONFIG: `GemmW4a16LargeConfig<${[...args, ...kind].join(',')}>` },
  })),
)

const exact = instantiations('gemm_exact.cu', 'FIREQ_GEMM_EXACT_KINDS(')
  .filter(([name]) => !name!.includes('lookup')) // whose tables of products are PTX
  .flatMap(([name, ...args]) =>
    product(codes, scales).map((kind) => ({
      name: [name, ...kind].join(' '),
      source: 'gemm_exact.cpp',
      defines: { CONFIG: `GemmExactConfig<${[...args, ...kind].join(',')}>` },
    })),
  )

const dense = instantiations('gemm_dense.cu', 'FIREQ_GEMM_DENSE(').map(([name, ...args]) => ({
  name: name!,
  source: 'gemm_dense.cpp',
  defines: { CONFIG: `GemmDenseConfig<${args.join(',')}>` },
}))

// step: without FIREQ_SLOW_TESTS every so manieth, so that small and large tiles, both epilogues, codes and scales are among them.
const families: readonly (readonly [name: string, instances: readonly Instance[], step: number])[] = [
  ['up to 32 tokens', small, 13],
  ['up to 512 tokens', medium, 21],
  ['many tokens', large, 13],
  ['BF16 activations', bf16, 15],
  ['many tokens, BF16 activations', bf16Large, 4],
  ['sums in FP32, groups of 32, 64 and 128', exact, 28],
  ['FP8 × FP8, BF16 × BF16', dense, 5],
]

describeEmulated('the GEMMs on the host', () => {
  describe.each(families)('%s', (_, instances, step) => {
    it.each(emulated(instances, step))('$name', async ({ source, defines }) => {
      await run(await compile(source, defines))
    })
  })
})
