// Builds the native addon of this platform into packages/kernels/npm/<platform>/fireq.node. Quick when nothing changed.
// Without CMake or a C++20 compiler it says what is missing and succeeds: the TypeScript backend needs neither.
// `--asan` builds a second copy with AddressSanitizer into build/native-asan instead.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism, tmpdir } from 'node:os'
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

const compiler = findCompiler()
const missing = [...missingCmake(), ...missingMake(), ...missingCompiler()]
if (missing.length > 0) giveUp(missing.join('\n'))
build()

function missingCmake() {
  const { status, stdout } = spawnSync('cmake', ['--version'], { encoding: 'utf8' })
  const [, major, minor] = (status === 0 && /version (\d+)\.(\d+)/.exec(stdout)) || []
  if (Number(major) > 3 || (Number(major) === 3 && Number(minor) >= 18)) return []
  return [
    `CMake 3.18 or later is missing${major ? `: this is ${major}.${minor}` : ''}. To get it: sudo apt install cmake (Debian,`,
    'Ubuntu), sudo dnf install cmake (Fedora), brew install cmake (macOS), pip install cmake (anywhere).',
  ]
}

function missingMake() {
  const found = ['ninja', 'make'].some((tool) => spawnSync(tool, ['--version'], { stdio: 'ignore' }).status === 0)
  return found
    ? []
    : [
        'Ninja or make is missing. To get one: sudo apt install ninja-build, sudo dnf install ninja-build, brew install ninja.',
      ]
}

function findCompiler() {
  const wanted = process.env.CXX
  return (wanted ? [wanted] : ['c++', 'g++', 'clang++']).find((name) => compiles(name))
}

function missingCompiler() {
  if (compiler !== undefined) return []
  const wanted = process.env.CXX
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
  dropStaleBuild()
  mkdirSync(buildDir, { recursive: true })
  const outputDir = asan ? buildDir : packageDir
  const args = ['build', '--directory', packageDir, '--out', buildDir, '--config', 'Release', '--log-level', 'error']
  args.push('--parallel', String(availableParallelism())) // make takes one file at a time otherwise
  args.push(`--CDFIREQ_OUTPUT_DIR=${outputDir}`, `--CDFIREQ_ASAN=${asan ? 'ON' : 'OFF'}`)
  const env = { ...process.env, CXX: compiler }
  const { status, stdout, stderr } = spawnSync(process.execPath, [cmakeJs, ...args], { encoding: 'utf8', env })
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

/** CMake remembers paths: a build of a tree that was moved, or by a compiler that is gone, can't be continued. */
function dropStaleBuild() {
  const cacheFile = join(buildDir, 'CMakeCache.txt')
  if (!existsSync(cacheFile)) return
  const cache = readFileSync(cacheFile, 'utf8')
  const remembered = (name) => new RegExp(`^${name}:\\w+=(.*)$`, 'm').exec(cache)?.[1] ?? ''
  if (remembered('CMAKE_HOME_DIRECTORY') === packageDir && existsSync(remembered('CMAKE_CXX_COMPILER'))) return
  rmSync(buildDir, { recursive: true, force: true })
}

function giveUp(reason) {
  console.log(`fireq: the native addon is not built.\n${reason}\ncontinuing on the TypeScript reference backend`)
  process.exit(0)
}
