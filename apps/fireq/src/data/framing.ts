/**
 * How the lines of a text become one text. `file`: as they are. `hf`: as GPTQ and most papers join the rows of the
 * WikiText-2 data set: a blank line is an empty row, any other keeps its line end, and "\n\n" goes between rows.
 */
export type Framing = 'hf' | 'file'

/** Papers' WikiText-2 comes as `wiki.test.raw`; any other text is taken as it is. */
export function defaultFraming(path: string): Framing {
  return path.endsWith('.raw') ? 'hf' : 'file'
}

export function frameText(text: string, framing: Framing): string {
  if (framing === 'file') return text
  const lines = text.split('\n')
  if (lines.at(-1) === '') lines.pop() // what follows the last line end is no line
  return lines.map((line) => (line.trim() === '' ? '' : `${line}\n`)).join('\n\n')
}
