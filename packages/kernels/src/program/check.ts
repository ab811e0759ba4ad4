import { ProgramError } from '../errors.js'
import { type Op, ops } from '../ops/index.js'
import type { CheckContext, OpDefinition, Roles } from './op.js'
import type { Program } from './program.js'

/** An op's definition with its types forgotten: for code that treats all ops alike. */
export type AnyOp = OpDefinition<string, Roles, Readonly<Record<string, number | string | boolean>>>

export function definitionOf(op: Op): AnyOp {
  return ops[op.kind] as unknown as AnyOp
}

/** Operands of `op` with their roles, those left out omitted. */
export function operandsOf(op: Op): { role: string; name: string; use: 'input' | 'output' | 'weight' | 'constant' }[] {
  const names = op.operands as Readonly<Record<string, string | undefined>>
  return Object.entries(definitionOf(op).roles).flatMap(([role, type]) => {
    const name = names[role]
    return name === undefined ? [] : [{ role, name, use: type.replace('?', '') as 'input' }]
  })
}

/**
 * Throws a ProgramError if the program can't run: an unknown op, operand or attribute, a buffer read before it is
 * written or written twice, shapes or types that an op doesn't take, an output that nothing writes.
 */
export function checkProgram(program: Program): void {
  const written = new Set(Object.keys(program.buffers).filter((name) => program.buffers[name]!.role === 'input'))
  for (const [index, op] of program.ops.entries()) checkOp(program, op, index, written)
  for (const [name, spec] of Object.entries(program.buffers)) {
    if (spec.role === 'output' && !written.has(name)) {
      throw new ProgramError(`Program '${program.name}': no op writes the output '${name}'`)
    }
  }
}

function checkOp(program: Program, op: Op, index: number, written: Set<string>): void {
  const fail = (message: string): never => {
    throw new ProgramError(`Program '${program.name}', op ${index} (${op.kind}): ${message}`)
  }
  if (!Object.hasOwn(ops, op.kind)) fail(`unknown op; known are ${Object.keys(ops).join(', ')}`)
  const definition = definitionOf(op)
  const bound = op.operands as Readonly<Record<string, string | undefined>>
  for (const role of Object.keys(bound)) if (!Object.hasOwn(definition.roles, role)) fail(`has no operand '${role}'`)
  for (const [role, type] of Object.entries(definition.roles)) {
    if (bound[role] === undefined && !type.endsWith('?')) fail(`operand '${role}' is missing`)
  }
  for (const { role, name, use } of operandsOf(op)) {
    const table = use === 'weight' ? program.weights : use === 'constant' ? program.constants : program.buffers
    if (!Object.hasOwn(table, name)) fail(`${role} names '${name}', which the program doesn't declare`)
    if (use === 'input' && !written.has(name)) fail(`reads '${name}' before anything writes it`)
  }
  for (const { name, use } of operandsOf(op)) {
    if (use !== 'output') continue
    if (written.has(name)) fail(`writes '${name}', which is an input or already written`)
    written.add(name)
  }
  definition.check(checkContext(program, op, fail), op.attrs as never)
}

function checkContext(program: Program, op: Op, fail: (message: string) => never): CheckContext {
  const bound = op.operands as Readonly<Record<string, string>>
  const named = (role: string): string => bound[role] ?? fail(`operand '${role}' is missing`)
  return {
    has: (role) => bound[role] !== undefined,
    buffer: (role) => ({ name: named(role), ...program.buffers[named(role)]! }),
    weightShape: (role) => program.weights[named(role)]!.shape,
    constantLength: (role) => program.constants[named(role)]!.length,
    kv: () => program.kv ?? fail('the program has no KV cache'),
    fail,
  }
}
