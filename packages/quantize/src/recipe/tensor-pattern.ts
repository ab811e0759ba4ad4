/**
 * Whether a tensor's name matches: `/…/` is a regular expression found anywhere in the name; otherwise `*` stands for
 * anything within one dotted part, `**` for anything at all, and the pattern must match the whole name.
 * @throws SyntaxError where the regular expression isn't one
 */
export function tensorPattern(pattern: string): RegExp {
  if (pattern.length > 2 && pattern.startsWith('/') && pattern.endsWith('/')) return new RegExp(pattern.slice(1, -1))
  const escaped = pattern.replace(/[.+?^${}()|[\]\\]/g, '\\$&')
  const source = escaped.replace(/\*\*|\*/g, (stars) => (stars === '**' ? '.*' : '[^.]*'))
  return new RegExp(`^${source}$`)
}
