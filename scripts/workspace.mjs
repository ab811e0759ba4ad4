// What both `npm start` and `npm test` need: dependencies installed and packages built, quickly the second time.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const bin = join(root, 'node_modules', '.bin')
const stamp = join(root, 'node_modules', '.fireq-installed')

/** Runs a command in the repository, its output shown; ends this process with its status if it fails. */
export function run(command, args, { env = {}, allowFailure = false } = {}) {
  const { status, error } = spawnSync(command, args, {
    cwd: root,
    stdio: 'inherit',
    shell: process.platform === 'win32',
    env: { ...process.env, TURBO_TELEMETRY_DISABLED: '1', PATH: `${bin}${delimiter}${process.env.PATH}`, ...env },
  })
  if (error) console.error(`Could not run ${command}: ${error.message}`)
  const code = error ? 127 : (status ?? 1)
  if (code !== 0 && !allowFailure) {
    console.error(`\n${command} ${args.join(' ')} failed with status ${code}`)
    process.exit(code)
  }
  return code
}

/** Installs what pnpm-lock.yaml pins, unless that is already there. pnpm itself comes from npm, at the pinned version. */
export function install() {
  checkNode()
  const wanted = lockHash()
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).devEngines.packageManager
  run('npx', ['--yes', `pnpm@${version}`, 'install', '--frozen-lockfile', '--prefer-offline'], { env: { CI: 'true' } })
  writeFileSync(stamp, wanted)
}

/** Builds every package; turbo replays what hasn't changed. */
export function build() {
  run('turbo', ['run', 'build', '--output-logs=new-only', '--log-order=grouped'])
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major < 20 || (major === 20 && minor < 17)) {
    console.error(`fireq needs Node 20.17 or newer, but this is ${process.versions.node}`)
    process.exit(1)
  }
}

function lockHash() {
  const hash = createHash('sha256')
  const manifests = ['packages', 'apps', 'packages/kernels/npm'].flatMap((folder) =>
    readdirSync(join(root, folder)).map((name) => join(folder, name, 'package.json')),
  )
  for (const file of ['pnpm-lock.yaml', 'pnpm-workspace.yaml', 'package.json', ...manifests.sort()]) {
    if (existsSync(join(root, file))) hash.update(readFileSync(join(root, file)))
  }
  return hash.digest('hex')
}
