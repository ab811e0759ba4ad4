import { describe, expect, it } from 'vitest'
import { checkProgram, type Program, ProgramBuilder, ProgramError, printProgram } from '../../src/index.js'

/** tokens → embed → rmsNorm → logits, 8 wide. */
function tiny(): ProgramBuilder {
  const p = new ProgramBuilder('tiny')
  p.input('tokens', 'i32', ['tokens'])
  p.scratch('hidden', 'f32', ['tokens', 8])
  p.scratch('normed', 'f32', ['tokens', 8])
  p.output('logits', 'f32', ['tokens', 16])
  p.weight('table', [16, 8])
  p.weight('norm', [8])
  p.op('embed', { tokens: 'tokens', table: 'table', out: 'hidden' }, {})
  p.op('rmsNorm', { x: 'hidden', weight: 'norm', out: 'normed' }, { eps: 1e-5 })
  p.op('linear', { x: 'normed', weight: 'table', out: 'logits' }, {})
  return p
}

/** The program with some of its parts replaced, unchecked. */
const altered = (changes: (program: Program) => Partial<Program>): (() => void) => {
  const program = tiny().build()
  return () => checkProgram({ ...program, ...changes(program) })
}

describe('checkProgram', () => {
  it('accepts a program whose shapes fit', () => {
    expect(tiny().build().ops).toHaveLength(3)
  })

  it.each<[string, (p: Program) => Partial<Program>, string]>([
    [
      'a shape that does not fit',
      (p) => ({ buffers: { ...p.buffers, normed: { ...p.buffers.normed!, shape: ['tokens', 9] } } }),
      "Program 'tiny', op 1 (rmsNorm): expected out of shape [tokens, 8], but 'normed' is [tokens, 9]",
    ],
    [
      'a weight of the wrong shape',
      (p) => ({ weights: { ...p.weights, norm: { shape: [9], parts: ['norm'] } } }),
      "Program 'tiny', op 1 (rmsNorm): expected weight weight of shape [8], but it is [9]",
    ],
    [
      'a type an op does not take',
      (p) => ({ buffers: { ...p.buffers, tokens: { ...p.buffers.tokens!, dtype: 'f32' } } }),
      "Program 'tiny', op 0 (embed): expected tokens of type i32, but 'tokens' is f32",
    ],
    [
      'a buffer read before it is written',
      (p) => ({ ops: p.ops.slice(1) }),
      "Program 'tiny', op 0 (rmsNorm): reads 'hidden' before anything writes it",
    ],
    [
      'a buffer written twice',
      (p) => ({ ops: [p.ops[0]!, ...p.ops] }),
      "Program 'tiny', op 1 (embed): writes 'hidden', which is an input or already written",
    ],
    ['an output that nothing writes', (p) => ({ ops: p.ops.slice(0, 2) }), "no op writes the output 'logits'"],
    [
      'an operand the op does not have',
      (p) => ({ ops: [{ ...p.ops[0]!, operands: { ...p.ops[0]!.operands, extra: 'x' } } as never] }),
      "op 0 (embed): has no operand 'extra'",
    ],
    [
      'a missing operand',
      (p) => ({ ops: [{ ...p.ops[0]!, operands: { tokens: 'tokens', out: 'hidden' } } as never] }),
      "op 0 (embed): operand 'table' is missing",
    ],
    ['an unknown op', (p) => ({ ops: [{ ...p.ops[0]!, kind: 'conv' } as never] }), 'op 0 (conv): unknown op'],
    [
      'an undeclared buffer',
      (p) => ({ ops: [{ ...p.ops[0]!, operands: { ...p.ops[0]!.operands, out: 'nowhere' } } as never] }),
      "out names 'nowhere', which the program doesn't declare",
    ],
  ])('refuses %s', (_, change, message) => {
    expect(altered(change)).toThrow(ProgramError)
    expect(altered(change)).toThrow(message)
  })

  it('is not fooled by names that every object has', () => {
    const program = altered((p) => ({
      ops: [{ ...p.ops[0]!, operands: { ...p.ops[0]!.operands, out: 'constructor' } } as never],
    }))
    expect(program).toThrow("doesn't declare")
  })

  it('refuses FP8 without its scale', () => {
    const p = new ProgramBuilder('fp8')
    p.input('x', 'e4m3', ['tokens', 8])
    p.output('y', 'f32', ['tokens', 4])
    p.weight('w', [4, 8])
    p.op('linear', { x: 'x', weight: 'w', out: 'y' }, {})
    expect(() => p.build()).toThrow('xScale goes with an x of type e4m3')
  })
})

describe('printProgram', () => {
  it('writes an op a line', () => {
    expect(printProgram(tiny().build()).split('\n')).toEqual([
      'hidden = embed(tokens: tokens, table: table)',
      'normed = rmsNorm(x: hidden, weight: norm, eps=0.00001)',
      'logits = linear(x: normed, weight: table)',
    ])
  })
})
