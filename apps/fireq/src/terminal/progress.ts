import { SingleBar } from 'cli-progress'
import { formatSeconds } from './format.js'

/** How far long work has come, shown on stderr. */
interface Progress {
  /**
   * @param fraction 0…1 of all the work
   * @param label what is being done
   * @param secondsLeft if known better than from the time that the fraction took
   */
  update(fraction: number, label: string, secondsLeft?: number): void
  /** Takes the bar away. Safe to call twice. */
  stop(): void
}

interface ProgressOptions {
  readonly quiet?: boolean
  readonly stream?: NodeJS.WriteStream
  /** Seconds of a clock. */
  readonly now?: () => number
}

/** A bar in a terminal; now and then a plain line elsewhere. */
export function createProgress({
  quiet = false,
  stream = process.stderr,
  now = clock,
}: ProgressOptions = {}): Progress {
  if (quiet) return { update() {}, stop() {} }
  return stream.isTTY && process.env.TERM !== 'dumb' ? bar(stream, now) : lines(stream, now)
}

function bar(stream: NodeJS.WriteStream, now: () => number): Progress {
  const single = new SingleBar({
    stream,
    format: '{bar} {percent} · {label}{left}',
    barCompleteChar: '█',
    barIncompleteChar: '░',
    barsize: 28,
    hideCursor: true,
    clearOnComplete: true,
    gracefulExit: false, // Ctrl-C is ours
    stopOnComplete: false,
  })
  const began = now()
  let started = false
  return {
    update(fraction, label, secondsLeft = estimate(began, now(), fraction)) {
      const payload = { percent: percent(fraction), label, left: leftText(secondsLeft) }
      if (!started) single.start(1, fraction, payload)
      else single.update(fraction, payload)
      started = true
    },
    stop() {
      if (started) single.stop()
      started = false
    },
  }
}

/** A line for each tenth of the work, and at least every half minute. */
function lines(stream: NodeJS.WriteStream, now: () => number): Progress {
  const began = now()
  let shown = { tenth: -1, at: began }
  return {
    update(fraction, label, secondsLeft = estimate(began, now(), fraction)) {
      const tenth = Math.floor(fraction * 10 + 1e-9)
      if (tenth === shown.tenth && now() - shown.at < 30) return
      shown = { tenth, at: now() }
      stream.write(`${percent(fraction)} · ${label}${leftText(secondsLeft)}\n`)
    },
    stop() {},
  }
}

/** Too early guesses are worse than none. */
function estimate(began: number, now: number, fraction: number): number | undefined {
  const elapsed = now - began
  return fraction < 0.02 || fraction >= 1 || elapsed < 1 ? undefined : (elapsed / fraction) * (1 - fraction)
}

function percent(fraction: number): string {
  return `${Math.floor(fraction * 100 + 1e-9)} %`.padStart(5)
}

function leftText(secondsLeft: number | undefined): string {
  return secondsLeft === undefined || secondsLeft < 0.05 ? '' : ` · ${formatSeconds(secondsLeft)} left`
}

function clock(): number {
  return performance.now() / 1000
}
