import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { readEnvironment } from '../env.js'
import { BackendError } from '../errors.js'
import type { NativeAddon } from './addon-types.js'

/** Where an addon was looked for and what came of it. */
export interface LoadAttempt {
  readonly from: string
  readonly error: string
}

export type LoadedAddon =
  | { readonly addon: NativeAddon; readonly from: string }
  | { readonly addon: undefined; readonly attempts: readonly LoadAttempt[] }

const packages: Readonly<Record<string, string>> = { 'linux-x64': 'linux-x64-gnu' }

let loaded: LoadedAddon | undefined

/** Loads the addon once; a failure is remembered with every attempt. */
export function loadAddon(): LoadedAddon {
  loaded ??= tryAll()
  return loaded
}

/** The addon, or an error that lists every attempt and how to fix it. */
export function requireAddon(): NativeAddon {
  const result = loadAddon()
  if (result.addon === undefined) throw new BackendError(explainFailure(result.attempts))
  return result.addon
}

export function explainFailure(attempts: readonly LoadAttempt[]): string {
  const lines = attempts.map(({ from, error }) => `  ${from}: ${error}`)
  return ['The native addon could not be loaded:', ...lines, `To fix it: ${fix(attempts)}`].join('\n')
}

function fix(attempts: readonly LoadAttempt[]): string {
  const errors = attempts.map(({ error }) => error).join('\n')
  if (!(platformKey() in packages)) return `there is no addon for ${platformKey()} yet; use the reference backend`
  if (/GLIBC/.test(errors)) return 'this system has an older C library than the addon needs: build it here, pnpm build'
  const name = `@fireq/kernels-${packages[platformKey()]}`
  return `install ${name} (it is an optional dependency: don't pass --no-optional), or in a clone run pnpm build`
}

function platformKey(): string {
  return `${process.platform}-${process.arch}`
}

function tryAll(): LoadedAddon {
  const attempts: LoadAttempt[] = []
  const require = createRequire(import.meta.url)
  for (const from of candidates()) {
    try {
      return { addon: require(from) as NativeAddon, from }
    } catch (error) {
      attempts.push({ from, error: (error instanceof Error ? error.message : String(error)).split('\n')[0]! })
    }
  }
  return { addon: undefined, attempts }
}

/** The platform's package, then where a build in this repository leaves it. */
function candidates(): string[] {
  const { addon } = readEnvironment()
  if (addon !== undefined) return [addon]
  const name = packages[platformKey()]
  if (name === undefined) return []
  const local = ['../npm', '../../npm'].map((up) => fileURLToPath(new URL(`${up}/${name}/fireq.node`, import.meta.url)))
  return [`@fireq/kernels-${name}`, ...local]
}
