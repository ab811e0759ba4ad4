// Builds the native addon of this platform into packages/kernels/npm/<platform>/fireq.node. Quick when nothing changed.
// Without CMake or a C++20 compiler it says what is missing and succeeds: the TypeScript backend needs neither.
// `--asan` builds a second copy with AddressSanitizer into build/native-asan instead.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const asan = process.argv.includes('--asan')

const platforms = { 'linux-x64': 'linux-x64-gnu' }
const platform = platforms[`${process.platform}-${process.arch}`]
if (platform === undefined) {
  giveUp(`there is no native addon for ${process.platform} on ${process.arch} yet`)
}
const packageDir = join(root, 'packages/kernels/npm', platform)
const buildDir = join(root, 'build', asan ? 'native-asan' : 'native', platform)

const missing = [...missingCmake(), ...missingCompiler()]
if (missing.length > 0) giveUp(missing.join('\n'))
build()

function missingCmake() {
  const { status } = spawnSync('cmake', ['--version'], { stdio: 'ignore' })
  if (status === 0) return []
  return [
    'CMake (3.18 or later) is missing. To get it: sudo apt install cmake (Debian, Ubuntu), sudo dnf install cmake (Fedora),',
    'brew install cmake (macOS), pip install cmake (anywhere).',
  ]
}

function missingCompiler() {
  const wanted = process.env.CXX // where cmake looks first
  const compilers = wanted ? [wanted] : ['c++', 'g++', 'clang++']
  if (compilers.some((compiler) => compiles(compiler))) return []
  return [
    `A C++20 compiler (GCC 11, Clang 14 or later) is missing${wanted ? `: CXX=${wanted} builds no test program` : ''}. To get it:`,
    'sudo apt install g++ (Debian, Ubuntu), sudo dnf install gcc-c++ (Fedora), xcode-select --install (macOS).',
  ]
}

function compiles(compiler) {
  const dir = mkdtempSync(join(tmpdir(), 'fireq-'))
  try {
    writeFileSync(
      join(dir, 'a.cc'),
      '#include <bit>\n#include <atomic>\nint main() { return std::bit_cast<int>(0.0f); }\n',
    )
    return spawnSync(compiler, ['-std=c++20', 'a.cc', '-o', 'a'], { cwd: dir, stdio: 'ignore' }).status === 0
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

function build() {
  const require = createRequire(join(packageDir, 'package.json'))
  const cmakeJs = join(require.resolve('cmake-js/package.json'), '../bin/cmake-js')
  mkdirSync(buildDir, { recursive: true })
  const outputDir = asan ? buildDir : packageDir
  const args = ['build', '--directory', packageDir, '--out', buildDir, '--config', 'Release', '--log-level', 'error']
  args.push(`--CDFIREQ_OUTPUT_DIR=${outputDir}`, `--CDFIREQ_ASAN=${asan ? 'ON' : 'OFF'}`)
  // cmake-js configures once; when its last attempt failed, or the tree was moved, start over.
  const { status, stdout, stderr } = spawnSync(process.execPath, [cmakeJs, ...args], { encoding: 'utf8' })
  if (status !== 0) {
    process.stdout.write(stdout)
    process.stderr.write(stderr)
    console.error('fireq: the native addon failed to build')
    process.exit(1)
  }
  const addon = join(outputDir, 'fireq.node')
  if (!existsSync(addon)) {
    console.error(`fireq: the build left no ${addon}`)
    process.exit(1)
  }
  console.log(`fireq: native addon ready: ${addon.slice(root.length)}`)
  const why = asan ? '' : require(addon).cudaWhyNoKernels
  if (why !== '') console.log(`fireq: ${why}`)
}

function giveUp(reason) {
  console.log(`fireq: the native addon is not built.\n${reason}\ncontinuing on the TypeScript reference backend`)
  process.exit(0)
}
