import type { BackendOptions, GlobalOptions } from '../options.js'
import type { Setting } from './settings.js'

/** What `fireq quantize` was asked for. */
export interface QuantizeCommandOptions extends BackendOptions, GlobalOptions {
  readonly out: string
  readonly recipe: string
  readonly set?: readonly Setting[]
  readonly calibrationData?: string
  readonly dryRun?: boolean
  readonly overwrite?: boolean
  readonly json?: boolean
}
