import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

export const BASELINES = ['fp8Tensor', 'fp8Row', 'bf16'] as const
export type Baseline = (typeof BASELINES)[number]

export interface BaselinesAbout {
  readonly torch: string
  readonly cuda: string
  readonly gpu: string
}

interface Answer {
  readonly result?: unknown
  readonly error?: string
}

/** cuBLASLt through PyTorch in a process of its own (bench/gemm_baselines.py), which does one thing at a time. */
export class Baselines implements Disposable {
  readonly #child: ChildProcess
  readonly #answers: AsyncIterator<string>
  readonly #closed: Promise<unknown>
  #stderr = ''
  about: BaselinesAbout | undefined

  private constructor(python: string) {
    this.#child = spawn(python, ['-u', scriptPath()], { stdio: ['pipe', 'pipe', 'pipe'] })
    this.#child.stderr!.on('data', (text) => {
      this.#stderr = (this.#stderr + text).slice(-4000)
    })
    this.#child.stdin!.on('error', () => undefined) // its end is reported by the missing answer
    this.#closed = new Promise((resolve) => this.#child.once('close', resolve))
    this.#answers = createInterface({ input: this.#child.stdout! })[Symbol.asyncIterator]()
  }

  /** Throws an Error that says what is missing: python, PyTorch, a GPU it can use. */
  static async start(python: string): Promise<Baselines> {
    const baselines = new Baselines(python)
    const failed = new Promise<never>((_, reject) => {
      baselines.#child.once('error', (error) => reject(new Error(`could not run ${python}: ${error.message}`)))
    })
    failed.catch(() => undefined)
    try {
      baselines.about = (await Promise.race([baselines.#ask({ do: 'about' }), failed])) as BaselinesAbout
      return baselines
    } catch (error) {
      baselines[Symbol.dispose]()
      throw error
    }
  }

  async weight(n: number, k: number, bytes: number): Promise<void> {
    await this.#ask({ do: 'weight', n, k, bytes })
  }

  /** Prepares `count` GEMMs of m tokens; returns the relative error of FP8 with scales a row. */
  async tokens(m: number, count: number): Promise<number> {
    const { fp8Error } = (await this.#ask({ do: 'tokens', m, count })) as { fp8Error: number }
    return fp8Error
  }

  /** µs a GEMM. */
  async time(name: Baseline): Promise<number> {
    return (await this.#ask({ do: 'time', name })) as number
  }

  [Symbol.dispose](): void {
    this.#child.stdin?.end()
    this.#child.kill()
  }

  async #ask(command: object): Promise<unknown> {
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

/** Beside the built program's folder, the sources' or, in a bundle, the program itself. */
function scriptPath(): string {
  const here = dirname(fileURLToPath(import.meta.url))
  const candidates = ['../bench', '../../bench', '.'].map((folder) => join(here, folder, 'gemm_baselines.py'))
  const found = candidates.find(existsSync)
  if (found === undefined) throw new Error(`gemm_baselines.py is not beside ${here}`)
  return found
}
