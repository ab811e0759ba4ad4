const LAYER = /\.layers\.(\d+)\./

/** Groups items whose key is the same but for the number of a layer, in the order of their first. */
export function groupByLayer<T>(items: readonly T[], keyOf: (item: T) => string): T[][] {
  const groups = new Map<string, T[]>()
  for (const item of items) {
    const key = keyOf(item).replaceAll(new RegExp(LAYER, 'g'), '.layers.*.')
    const group = groups.get(key)
    if (group) group.push(item)
    else groups.set(key, [item])
  }
  return [...groups.values()]
}

/** One text for texts that differ only in the number of a layer: `model.layers.{0-2,5}.mlp`. */
export function joinLayers(texts: readonly string[]): string {
  if (texts.length === 1) return texts[0]
  const layers = ranges(texts.map((text) => Number(LAYER.exec(text)?.[1])))
  return texts[0].replaceAll(new RegExp(LAYER, 'g'), `.layers.{${layers}}.`)
}

/** `0-2,4` for 0, 1, 2, 4. */
function ranges(numbers: readonly number[]): string {
  const runs: [number, number][] = []
  for (const n of numbers) {
    const last = runs.at(-1)
    if (last && last[1] === n - 1) last[1] = n
    else runs.push([n, n])
  }
  return runs.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(',')
}
