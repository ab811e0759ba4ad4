import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

export interface BaselinesAbout {
  readonly torch: string
  readonly cuda: string
  readonly gpu: string
}

interface Answer {
  readonly result?: unknown
  readonly error?: string
}

/** PyTorch in a process of its own (a script of apps/repro/bench), which does one thing at a time. */
export class BaselineProcess implements Disposable {
  readonly #child: ChildProcess
  readonly #answers: AsyncIterator<string>
  readonly #closed: Promise<unknown>
  #stderr = ''
  #about: BaselinesAbout | undefined

  private constructor(python: string, script: string) {
    this.#child = spawn(python, ['-u', scriptPath(script)], { stdio: ['pipe', 'pipe', 'pipe'] })
    this.#child.stderr!.on('data', (text) => {
      this.#stderr = (this.#stderr + text).slice(-4000)
    })
    this.#child.stdin!.on('error', () => undefined) // its end is reported by the missing answer
    this.#closed = new Promise((resolve) => this.#child.once('close', resolve))
    this.#answers = createInterface({ input: this.#child.stdout! })[Symbol.asyncIterator]()
  }

  /** Throws an Error that says what is missing: python, PyTorch, a GPU it can use. */
  static async start(python: string, script: string): Promise<BaselineProcess> {
    const started = new BaselineProcess(python, script)
    const failed = new Promise<never>((_, reject) => {
      started.#child.once('error', (error) => reject(new Error(`could not run ${python}: ${error.message}`)))
    })
    failed.catch(() => undefined)
    try {
      started.#about = (await Promise.race([started.ask({ do: 'about' }), failed])) as BaselinesAbout
      return started
    } catch (error) {
      started[Symbol.dispose]()
      throw error
    }
  }

  get about(): BaselinesAbout {
    return this.#about!
  }

  [Symbol.dispose](): void {
    this.#child.stdin?.end()
    this.#child.kill()
  }

  /** Has the script do what `command.do` names with the command's other values; its answer, or an Error with its words. */
  async ask(command: { readonly do: string } & Readonly<Record<string, unknown>>): Promise<unknown> {
    this.#child.stdin!.write(`${JSON.stringify(command)}\n`)
    const { value, done } = await this.#answers.next()
    if (done) {
      await this.#closed // its last words may come after its last answer
      throw new Error(`the baselines ended: ${this.#stderr.trim().split('\n').at(-1) || 'without a word'}`)
    }
    const { result, error } = JSON.parse(value) as Answer
    if (error !== undefined) throw new Error(`the baselines failed: ${error}`)
    return result
  }
}

/** What the baselines ran on, or why they didn't. */
export type BaselinesRun = BaselinesAbout | { readonly notRun: string }

/** Starts baselines if they are wanted; if they can't run, that is no error. */
export async function startBaselines<T extends { readonly about: BaselinesAbout }>(
  wanted: boolean,
  start: () => Promise<T>,
): Promise<{ readonly baselines: T | undefined; readonly about: BaselinesRun }> {
  if (!wanted) return { baselines: undefined, about: { notRun: 'not asked for' } }
  try {
    const baselines = await start()
    return { baselines, about: baselines.about }
  } catch (error) {
    return { baselines: undefined, about: { notRun: error instanceof Error ? error.message : String(error) } }
  }
}

/** Beside the built program's folder, the sources' or, in a bundle, the program itself. */
function scriptPath(name: string): string {
  const here = dirname(fileURLToPath(import.meta.url))
  const candidates = ['../bench', '../../bench', '.'].map((folder) => join(here, folder, name))
  const found = candidates.find(existsSync)
  if (found === undefined) throw new Error(`${name} is not beside ${here}`)
  return found
}
