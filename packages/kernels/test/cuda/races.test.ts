import { beforeAll, expect, it } from 'vitest'
import { compile, describeEmulated, run } from './emulation.js'

// The emulation's search for races (kernels/cuda/tests/emulation/races.h) itself: on small kernels that are right, and on the same with
// one barrier, fence or wait left out.

const scenarios = [
  ['store then load', 'a race'],
  ['neighbouring bytes', 'a race'],
  ['copy then load', 'a race'],
  ['refill', 'a race'],
  ['shuffle', 'a race'],
  ['store out', 'no fence'],
  ['overwrite', 'a race'],
  ['asynchronous copies', 'a race'],
  ['initialize', 'a race'],
  ['neighbour', 'a race'],
] as const

describeEmulated('the search for races', () => {
  let program: Promise<string>
  beforeAll(() => {
    program = compile('race_scenarios.cpp')
  })

  it('has these scenarios', async () => {
    expect((await run(await program)).trim().split('\n')).toEqual(scenarios.map(([name]) => name))
  })
  it.each(scenarios)('%s', async (name, why) => {
    expect(await run(await program, [name])).toBe('')
    await expect(run(await program, [name, 'broken'])).rejects.toThrow(`ended with 1: ${why}: thread`)
  })
})
