// Packs what the GPU tests and benchmarks need into one folder, for a machine that has an NVIDIA driver and nothing else:
// node, the native addon with its kernels, and the tests and benchmarks as one file each. `repro bench` there times what
// PyTorch has too, if python3 has PyTorch.
//
//   node scripts/gpu-bundle.mjs [--out .bundle/gpu] [--system-node] [--no-build]
//
// Copy the folder there and run `sh run.sh`: the tests, then the benchmarks (or one: `bench` with the options of `repro bench
// gemm`; `attention` with those of `repro bench attention`; `test` with the options of node's test runner, such as
// --test-name-pattern=PATTERN; `sanitize` with a pattern: those tests, by default small ones, under each tool of
// compute-sanitizer). `--system-node` leaves node out: the other machine has one. `--no-build` takes the addon as it is.
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { build } from 'tsup'
import { root } from './workspace.mjs'

const MOST_BYTES = 64 * 2 ** 20
const addon = join(root, 'packages/kernels/npm/linux-x64-gnu/fireq.node')

const { values: options } = parseArgs({
  options: {
    out: { type: 'string', default: join(root, '.bundle/gpu') },
    'system-node': { type: 'boolean', default: false },
    'no-build': { type: 'boolean', default: false },
  },
})
const out = resolve(options.out)

checkAddon()
rmSync(out, { recursive: true, force: true })
mkdirSync(out, { recursive: true })
copyFileSync(addon, join(out, 'fireq.node'))
await bundleScripts()
for (const name of ['baselines.py', 'gemm_baselines.py', 'attention_baselines.py'])
  copyFileSync(join(root, 'apps/repro/bench', name), join(out, name))
if (!options['system-node']) copyFileSync(packedNode(), join(out, 'node.xz'))
writeRunner()
report()

function checkAddon() {
  if (!options['no-build']) execute(process.execPath, [join(root, 'scripts/build-native.mjs')])
  if (!existsSync(addon)) fail('the native addon is not built')
  const probe = `const a = require(${JSON.stringify(addon)}); process.stdout.write(a.cudaWhyNoKernels)`
  const why = execute(process.execPath, ['-e', probe])
  if (why !== '') fail(why)
}

async function bundleScripts() {
  await build({
    entry: {
      tests: join(root, 'packages/kernels/test/cuda/gpu/main.ts'),
      bench: join(root, 'packages/kernels/bench/gpu.ts'),
      repro: join(root, 'apps/repro/src/bench/standalone.ts'),
    },
    outDir: out,
    format: 'esm',
    outExtension: () => ({ js: '.mjs' }),
    target: 'node20',
    splitting: false,
    removeNodeProtocol: false,
    noExternal: [/.*/],
    config: false,
    silent: true,
    // For packages that are CommonJS.
    banner: {
      js: "import { createRequire as requireFor } from 'node:module'; const require = requireFor(import.meta.url);",
    },
    esbuildOptions: (esbuild) => {
      esbuild.conditions = ['fireq-source', 'node', 'import', 'default']
    },
  })
}

/** This node without its symbols, compressed: 100 MB become about 20. Kept, since that takes a minute. */
function packedNode() {
  const folder = join(root, '.cache')
  const packed = join(folder, `node-${process.version}-${process.platform}-${process.arch}.xz`)
  if (existsSync(packed)) return packed
  mkdirSync(folder, { recursive: true })
  const stripped = join(folder, `node-${process.pid}`)
  copyFileSync(process.execPath, stripped)
  chmodSync(stripped, 0o755)
  execute('strip', ['--strip-all', stripped])
  if (execute(stripped, ['-p', 'process.version']).trim() !== process.version) fail('node does not run once stripped')
  execute('xz', ['-6', '--threads=0', '--force', stripped])
  renameSync(`${stripped}.xz`, packed)
  return packed
}

function writeRunner() {
  copyFileSync(join(root, 'scripts/gpu-run.sh'), join(out, 'run.sh'))
  chmodSync(join(out, 'run.sh'), 0o755)
  writeFileSync(join(out, 'commit'), commit())
}

/** What the addon and the scripts were made from; marked if there are changes that aren't in it. */
function commit() {
  const git = (...args) => spawnSync('git', args, { cwd: root, encoding: 'utf8' }).stdout?.trim() ?? ''
  const head = git('rev-parse', 'HEAD')
  return head && git('status', '--porcelain') ? `${head}-dirty` : head
}

function report() {
  const sizes = readdirSync(out).map((name) => ({ name, bytes: statSync(join(out, name)).size }))
  const total = sizes.reduce((sum, { bytes }) => sum + bytes, 0)
  for (const { name, bytes } of sizes) console.log(`${(bytes / 2 ** 20).toFixed(2).padStart(7)} MiB  ${name}`)
  console.log(`${(total / 2 ** 20).toFixed(2).padStart(7)} MiB  in ${out}`)
  if (total > MOST_BYTES) fail(`the bundle is larger than ${MOST_BYTES / 2 ** 20} MiB`)
}

function execute(command, args) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8' })
  if (error) fail(`could not run ${command}: ${error.message}`)
  if (status !== 0) fail(`${command} ${args.join(' ')} failed:\n${stdout}${stderr}`)
  return stdout
}

function fail(reason) {
  console.error(`gpu-bundle: ${reason}`)
  process.exit(1)
}
