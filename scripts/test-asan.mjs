// Runs the tests of the native backend with an addon built with AddressSanitizer. Arguments go to vitest.
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const run = (command, args, env = {}) =>
  spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } }).status ?? 1

if (run(process.execPath, ['scripts/build-native.mjs', '--asan']) !== 0) process.exit(1)
const builds = join(root, 'build/native-asan')
const addon = readdirSync(builds, { recursive: true, encoding: 'utf8' }).find((file) => file.endsWith('fireq.node'))
if (addon === undefined) {
  console.log('skipped: there is no native addon to test')
  process.exit(0)
}
const compiler = process.env.CXX ?? 'c++'
const runtime = spawnSync(compiler, ['-print-file-name=libasan.so'], { encoding: 'utf8' }).stdout.trim()
const status = run(
  process.execPath,
  [join(root, 'node_modules/vitest/vitest.mjs'), 'run', 'packages/kernels/test/native', ...process.argv.slice(2)],
  {
    FIREQ_ADDON: join(builds, addon),
    LD_PRELOAD: runtime,
    // Node keeps memory until it exits, on purpose; and it maps memory of its own that ASan must leave alone.
    ASAN_OPTIONS: 'detect_leaks=0:abort_on_error=1:allocator_may_return_null=1',
  },
)
process.exit(status)
