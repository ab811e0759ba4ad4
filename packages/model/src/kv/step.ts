import type { Feeds, Program } from '@fireq/kernels'
import { ModelError } from '../errors.js'
import type { KvPool, KvSequence } from './pool.js'

/** New tokens of one sequence in a step. */
export interface StepEntry {
  readonly sequence: KvSequence
  /** Ids of the new tokens, at least one; they follow what the sequence already holds. */
  readonly tokens: ArrayLike<number>
  /** Which of the new tokens' logits are wanted, counted from the first of them. Default `last`. */
  readonly outputs?: 'last' | 'all' | 'none' | readonly number[]
}

/** One step of a batch, ready to run. */
export interface Step {
  /** `tokens`, `positions`, `slots`, `queryEnds`, `contextLengths`, `pageTable`, `outputRows`. */
  readonly feeds: Feeds
  /** Output rows of each entry: those from `ends[i − 1]` (0 for the first) to `ends[i]`. */
  readonly outputEnds: readonly number[]
  /** Takes the new tokens out of the pool again, for a step that failed. */
  rollBack(): void
}

/**
 * Makes room in the pool for every entry's tokens (all entries or none) and lays the batch out as programs expect it.
 * @throws KvPoolFullError if there is no room, ModelError if an entry is wrong; the pool is then as it was
 */
export function assembleStep(pool: KvPool, entries: readonly StepEntry[]): Step {
  checkEntries(entries)
  const before = entries.map(({ sequence }) => sequence.length)
  const rollBack = (count = entries.length): void => {
    for (let i = 0; i < count; i++) pool.truncate(entries[i]!.sequence, before[i]!)
  }
  entries.forEach(({ sequence, tokens }, i) => {
    try {
      pool.append(sequence, tokens.length)
    } catch (error) {
      rollBack(i)
      throw error
    }
  })
  const ends = runningSum(entries.map(({ tokens }) => tokens.length))
  const rows = entries.map((entry) => outputRows(entry))
  const flat = (values: (entry: StepEntry, i: number) => number[]): Int32Array =>
    Int32Array.from(entries.flatMap(values))
  const columns = Math.max(...entries.map(({ sequence }) => sequence.pages.length))
  const feeds = {
    tokens: flat(({ tokens }) => Array.from(tokens)),
    positions: flat(({ tokens }, i) => Array.from(tokens, (_, t) => before[i]! + t)),
    slots: flat(({ sequence, tokens }, i) => Array.from(tokens, (_, t) => slotOf(pool, sequence, before[i]! + t))),
    queryEnds: Int32Array.from(ends),
    contextLengths: flat(({ sequence }) => [sequence.length]),
    pageTable: flat(({ sequence: { pages } }) => [...pages, ...new Array<number>(columns - pages.length).fill(0)]),
    outputRows: flat((_, i) => rows[i]!.map((row) => (i === 0 ? 0 : ends[i - 1]!) + row)),
  }
  return { feeds, outputEnds: runningSum(rows.map((r) => r.length)), rollBack }
}

/** Those feeds that a program takes: a span of layers doesn't take them all. */
export function feedsOf(program: Program, feeds: Feeds): Feeds {
  return Object.fromEntries(Object.entries(feeds).filter(([name]) => program.buffers[name]?.role === 'input'))
}

function slotOf({ pageSize }: KvPool, { pages }: KvSequence, position: number): number {
  return pages[Math.floor(position / pageSize)]! * pageSize + (position % pageSize)
}

function outputRows({ tokens, outputs = 'last' }: StepEntry): number[] {
  if (outputs === 'none') return []
  if (outputs === 'last') return [tokens.length - 1]
  return outputs === 'all' ? Array.from(tokens, (_, row) => row) : [...outputs]
}

function runningSum(values: readonly number[]): number[] {
  let sum = 0
  return values.map((value) => {
    sum += value
    return sum
  })
}

function checkEntries(entries: readonly StepEntry[]): void {
  if (entries.length === 0) throw new ModelError('Expected at least one sequence for a step but received none')
  if (new Set(entries.map(({ sequence }) => sequence)).size < entries.length) {
    throw new ModelError('Expected every sequence at most once in a step but one is there twice')
  }
  entries.forEach(({ tokens, outputs }, i) => {
    if (tokens.length === 0) throw new ModelError(`Expected at least one new token for sequence ${i} but received none`)
    const bad = Array.prototype.findIndex.call(tokens, (id: number) => !Number.isInteger(id) || id < 0)
    if (bad >= 0)
      throw new ModelError(`Expected a token id for token ${bad} of sequence ${i} but received ${tokens[bad]}`)
    if (typeof outputs !== 'object') return
    const wrong = outputs.find((row) => !Number.isInteger(row) || row < 0 || row >= tokens.length)
    if (wrong !== undefined) {
      throw new ModelError(`Expected outputs of sequence ${i} from 0 to ${tokens.length - 1} but received ${wrong}`)
    }
  })
}
