import { SingleBar } from 'cli-progress'
import pc from 'picocolors'

/** How far an experiment is. Steps count alike; each says what it is when it begins. */
export interface Progress {
  /** Adds to the number of steps to come. */
  expect(steps: number): void
  /** The next step, and the end of the one before. */
  begin(label: string): void
  /** Part of the step that is done, 0…1. */
  within(fraction: number): void
  /** A line that stays. */
  note(line: string): void
  /** All done, or given up. */
  stop(): void
}

/** A bar where a person watches, else a line a step. Goes to stderr: results have stdout for themselves. */
export function createProgress(stream: NodeJS.WriteStream = process.stderr): Progress {
  return stream.isTTY ? new BarProgress(stream) : new LineProgress(stream)
}

class BarProgress implements Progress {
  readonly #stream: NodeJS.WriteStream
  readonly #bar: SingleBar
  readonly #began = performance.now()
  #steps = 0
  #done = -1
  #label = ''

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream
    this.#bar = new SingleBar({
      stream,
      format: `{bar} {percentage}%  {left}  {label}`,
      barCompleteChar: '━',
      barIncompleteChar: pc.dim('─'),
      barsize: 28,
      hideCursor: true,
      clearOnComplete: true,
      gracefulExit: false, // interrupts are the program's business
    })
  }

  expect(steps: number): void {
    if (this.#steps === 0) this.#bar.start(1, 0, { left: '', label: '' })
    this.#steps += steps
  }

  begin(label: string): void {
    this.#done++
    this.#label = label
    this.within(0)
  }

  within(fraction: number): void {
    const part = (Math.max(this.#done, 0) + fraction) / this.#steps
    this.#bar.update(part, { left: this.#timeLeft(part), label: this.#label })
  }

  note(line: string): void {
    this.#stream.write(`\r\x1b[K${line}\n`)
  }

  stop(): void {
    this.#bar.stop()
  }

  #timeLeft(part: number): string {
    const seconds = (performance.now() - this.#began) / 1000
    if (part < 0.02 || seconds < 2) return ''
    return `${duration((seconds * (1 - part)) / part)} left`
  }
}

class LineProgress implements Progress {
  readonly #stream: NodeJS.WriteStream
  #steps = 0
  #done = 0

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream
  }

  expect(steps: number): void {
    this.#steps += steps
  }

  begin(label: string): void {
    this.#done++
    this.note(`[${this.#done}/${this.#steps}] ${label}`)
  }

  within(): void {}

  note(line: string): void {
    this.#stream.write(`${line}\n`)
  }

  stop(): void {}
}

/** "12 s", "3 min 20 s", "2 h 5 min". */
function duration(seconds: number): string {
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  return `${Math.floor(whole / 3600)} h ${Math.round((whole % 3600) / 60)} min`
}
