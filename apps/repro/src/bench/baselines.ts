import { BaselineProcess, type BaselinesAbout } from './baseline-process.js'

export const BASELINES = ['fp8Tensor', 'fp8Row', 'bf16'] as const
export type Baseline = (typeof BASELINES)[number]

/** cuBLASLt through PyTorch (bench/gemm_baselines.py). */
export class Baselines implements Disposable {
  readonly #process: BaselineProcess

  private constructor(process: BaselineProcess) {
    this.#process = process
  }

  static async start(python: string): Promise<Baselines> {
    return new Baselines(await BaselineProcess.start(python, 'gemm_baselines.py'))
  }

  get about(): BaselinesAbout {
    return this.#process.about
  }

  async weight(n: number, k: number, bytes: number): Promise<void> {
    await this.#process.ask({ do: 'weight', n, k, bytes })
  }

  /** Prepares `count` GEMMs of m tokens; returns the relative error of FP8 with scales a row. */
  async tokens(m: number, count: number): Promise<number> {
    const { fp8Error } = (await this.#process.ask({ do: 'tokens', m, count })) as { fp8Error: number }
    return fp8Error
  }

  /** µs a GEMM. */
  async time(name: Baseline): Promise<number> {
    return (await this.#process.ask({ do: 'time', name })) as number
  }

  [Symbol.dispose](): void {
    this.#process[Symbol.dispose]()
  }
}
