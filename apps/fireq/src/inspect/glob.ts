/** Whether a tensor's name matches: `*` stands for anything, `?` for one character, all else for itself. */
export function globMatcher(pattern: string): (name: string) => boolean {
  const escaped = pattern.replace(/[.+^${}()|[\]\\]/g, '\\$&')
  const expression = new RegExp(`^${escaped.replace(/\*+/g, '.*').replace(/\?/g, '.')}$`, 's')
  return (name) => expression.test(name)
}
