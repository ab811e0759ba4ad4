import type { Op } from '../ops/index.js'
import type { Dim, SymbolicDim } from '../program/buffer.js'
import { operandsOf } from '../program/check.js'
import type { Program } from '../program/program.js'
import type { NativeProgram } from './addon-types.js'

/** The order in which native code counts the symbolic dimensions. */
export const symbols: readonly SymbolicDim[] = ['tokens', 'sequences', 'outputs', 'pages']

/** A program as native code takes it: names become indices into lists. */
export function lowerProgram(program: Program): NativeProgram {
  const index = {
    buffer: indexOf(program.buffers),
    weight: indexOf(program.weights),
    constant: indexOf(program.constants),
  }
  const lowerOp = (op: Op): NativeProgram['ops'][number] => ({
    kind: op.kind,
    attributes: op.attrs,
    operands: operandsOf(op).map(({ role, name, use }) => {
      const kind = use === 'input' || use === 'output' ? 'buffer' : use
      return { role, kind, index: index[kind].get(name)! }
    }),
  })
  return {
    name: program.name,
    buffers: Object.entries(program.buffers).map(([name, { dtype, role, shape }]) => ({
      name,
      dtype,
      role,
      shape: shape.map(lowerDim),
    })),
    constants: Object.values(program.constants),
    ops: program.ops.map(lowerOp),
  }
}

function lowerDim(dim: Dim): number {
  return typeof dim === 'number' ? dim : -1 - symbols.indexOf(dim)
}

function indexOf(table: Readonly<Record<string, unknown>>): Map<string, number> {
  return new Map(Object.keys(table).map((name, i) => [name, i]))
}
