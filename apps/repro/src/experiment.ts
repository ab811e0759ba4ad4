import type { Backend } from '@fireq/kernels'
import type { Command } from 'commander'
import type { Report } from './report/report.js'
import type { Progress } from './terminal/progress.js'

/** What every experiment may be asked for on the command line; each fills in its own defaults. */
export interface Settings {
  /** A Hugging Face directory; default: the stand-in. */
  readonly model?: string
  /** What is evaluated: a text, or token ids (`.bin`, uint16 little endian). */
  readonly data?: string
  readonly calibrationData?: string
  readonly windows?: number
  /** Tokens a window. */
  readonly window?: number
  readonly calibrationWindows?: number
  readonly compute?: 'bf16' | 'f32'
  readonly outliers?: 'off' | 'on' | 'both'
}

/** What an experiment works with. */
export interface Lab {
  readonly backend: Backend
  readonly settings: Settings
  /** Quantized models and scores, by what they were made from. */
  readonly cacheDir: string
  readonly progress: Progress
  readonly signal: AbortSignal
}

/** An experiment: a file here in `experiments/`, and a line in its list. */
export interface Experiment {
  readonly name: string
  /** One line, for `list`. */
  readonly summary: string
  /** Adds options of its own to the command; they arrive in `lab.settings`. */
  options?(command: Command): void
  run(lab: Lab): Promise<Report>
}
