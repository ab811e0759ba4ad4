import { operandsOf } from './check.js'
import type { Program } from './program.js'

/** The program as text, an op a line: `h1 = add(a: h0, b: attnOut)`. */
export function printProgram(program: Program): string {
  return program.ops
    .map((op) => {
      const operands = operandsOf(op)
      const outputs = operands.filter(({ use }) => use === 'output').map(({ name }) => name)
      const rest = operands.filter(({ use }) => use !== 'output').map(({ role, name }) => `${role}: ${name}`)
      const attrs = Object.entries(op.attrs).map(([key, value]) => `${key}=${value}`)
      const call = `${op.kind}(${[...rest, ...attrs].join(', ')})`
      return outputs.length > 0 ? `${outputs.join(', ')} = ${call}` : call
    })
    .join('\n')
}
