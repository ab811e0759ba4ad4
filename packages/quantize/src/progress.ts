export type QuantizeStage = 'copy' | 'replay' | 'calibrate' | 'transform' | 'round' | 'write' | 'finish'

export interface QuantizeProgress {
  /**
   * `copy`: the embedding or the head; `replay`: the forward pass of a layer that an earlier run has written;
   * `calibrate`, `transform`, `round`, `write`: a layer; `finish`: the model's other files.
   */
  readonly stage: QuantizeStage
  readonly layer?: number
  readonly layers: number
  /** The tensor being rounded. */
  readonly tensor?: string
  /** Of the whole model, 0…1. */
  readonly fraction: number
  /** Seconds to go, from the layers that this run has finished; absent before the first. */
  readonly secondsLeft?: number
}

/** Parts of a layer's time, roughly: only the bar within a layer depends on them, not the time left. */
const SHARES = { calibrate: 0.6, transform: 0.1, round: 0.25, write: 0.05 } as const
const WITHIN: Readonly<Record<QuantizeStage, number>> = {
  copy: 0,
  replay: 0,
  calibrate: 0,
  transform: SHARES.calibrate,
  round: SHARES.calibrate + SHARES.transform,
  write: 1 - SHARES.write,
  finish: 0,
}

/** Turns stages into progress events. */
export class ProgressMeter {
  readonly #layers: number
  readonly #report: ((progress: QuantizeProgress) => void) | undefined
  readonly #now: () => number
  #done: number
  #measured = { layers: 0, seconds: 0 }
  #layerBegan: number | undefined

  /** @param done layers that an earlier run has written */
  constructor(
    layers: number,
    done: number,
    report: ((progress: QuantizeProgress) => void) | undefined,
    now: () => number = () => performance.now(),
  ) {
    this.#layers = layers
    this.#done = done
    this.#report = report
    this.#now = now
  }

  beginLayer(): void {
    this.#layerBegan = this.#now()
  }

  endLayer(): void {
    this.#measured = {
      layers: this.#measured.layers + 1,
      seconds: this.#measured.seconds + (this.#now() - this.#layerBegan!) / 1000,
    }
    this.#layerBegan = undefined
    this.#done++
  }

  /** @param part of the stage that is done, 0…1 */
  stage(stage: QuantizeStage, at: { readonly layer?: number; readonly tensor?: string } = {}, part = 0): void {
    const share = stage === 'calibrate' || stage === 'round' ? SHARES[stage] : 0
    const within = this.#layerBegan === undefined ? 0 : WITHIN[stage] + share * part
    const fraction = stage === 'finish' ? 1 : Math.min((this.#done + within) / this.#layers, 1)
    const secondsLeft = this.#secondsLeft()
    this.#report?.({ stage, layers: this.#layers, ...at, fraction, ...(secondsLeft !== undefined && { secondsLeft }) })
  }

  #secondsLeft(): number | undefined {
    const { layers, seconds } = this.#measured
    if (layers === 0) return undefined
    const elapsed = this.#layerBegan === undefined ? 0 : (this.#now() - this.#layerBegan) / 1000
    return Math.max((seconds / layers) * (this.#layers - this.#done) - elapsed, 0)
  }
}
