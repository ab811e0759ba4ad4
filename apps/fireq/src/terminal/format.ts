/** Bytes for people: three digits and a binary unit. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']
  let [value, unit] = [bytes, 0]
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  return `${unit === 0 ? value : value.toPrecision(3)} ${units[unit]}`
}

/** A whole number with its thousands apart: 8,134,912. */
export function formatWhole(value: number): string {
  return value.toLocaleString('en-US')
}

/** Seconds as 0.4 s, 12 s, 3 min 05 s or 2 h 07 min. */
export function formatSeconds(seconds: number): string {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} s`
  const [minutes, hours] = [Math.floor(whole / 60), Math.floor(whole / 3600)]
  const two = (n: number) => String(n).padStart(2, '0')
  return hours === 0 ? `${minutes} min ${two(whole % 60)} s` : `${hours} h ${two(minutes % 60)} min`
}

/** A few significant digits, without an exponent where that stays short. */
export function formatNumber(value: number, digits = 4): string {
  return Number.isFinite(value) ? Number(value.toPrecision(digits)).toString() : String(value)
}

/** Text from a file or a model in a form that can't steer a terminal: control characters become \u{…}. */
export function printable(text: string, { keep = '' }: { readonly keep?: string } = {}): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, (character) =>
    keep.includes(character) ? character : `\\u{${character.charCodeAt(0).toString(16)}}`,
  )
}
