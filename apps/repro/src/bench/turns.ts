/** Who takes part, and how long a run of theirs takes, in µs. */
export type Contestant<Name extends string> = readonly [name: Name, time: () => Promise<number>]

/** Times contestants in turns, so that all meet the same clocks; medians of `rounds`, after one that doesn't count. */
export async function takeTurns<Name extends string>(
  contestants: readonly Contestant<Name>[],
  rounds: number,
  warmedUp?: () => void,
): Promise<Record<Name, number>> {
  const times = new Map(contestants.map(([name]) => [name, [] as number[]]))
  for (const [, time] of contestants) await time()
  warmedUp?.()
  for (let round = 0; round < rounds; round++) {
    for (const [name, time] of contestants) times.get(name)!.push(await time())
  }
  return Object.fromEntries([...times].map(([name, values]) => [name, median(values)])) as Record<Name, number>
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}
