import type { AttentionShape, HeadCounts } from './attention-shapes.js'
import { BaselineProcess, type BaselinesAbout } from './baseline-process.js'

export const ATTENTION_BASELINES = ['cudnn', 'flash'] as const
export type AttentionBaseline = (typeof ATTENTION_BASELINES)[number]

/** PyTorch's attention in BF16 (bench/attention_baselines.py). */
export class AttentionBaselines implements Disposable {
  readonly #process: BaselineProcess

  private constructor(process: BaselineProcess) {
    this.#process = process
  }

  static async start(python: string): Promise<AttentionBaselines> {
    return new AttentionBaselines(await BaselineProcess.start(python, 'attention_baselines.py'))
  }

  get about(): BaselinesAbout {
    return this.#process.about
  }

  /** Prepares `count` runs on keys and values that are `bytes` long together; returns why some baselines can't. */
  async prepare(
    { kind, lengths }: AttentionShape,
    { heads, keyHeads }: HeadCounts,
    count: number,
    bytes: number,
  ): Promise<Partial<Record<AttentionBaseline, string>>> {
    const sizes = { batch: lengths.length, length: lengths[0]!, heads, key_heads: keyHeads, count, bytes }
    return (await this.#process.ask({ do: 'prepare', causal: kind === 'prefill', ...sizes })) as Record<string, string>
  }

  /** µs a run. */
  async time(name: AttentionBaseline): Promise<number> {
    return (await this.#process.ask({ do: 'time', name })) as number
  }

  /** ‖out − exact‖ / ‖exact‖ on a sample of rows and heads; exact: float64 attention of the same inputs. */
  async error(name: AttentionBaseline): Promise<number> {
    return (await this.#process.ask({ do: 'error', name })) as number
  }

  [Symbol.dispose](): void {
    this.#process[Symbol.dispose]()
  }
}
