import { expect, it } from 'vitest'
import { attentionCases } from '../conformance/attention-cases.js'
import { linearCases } from '../conformance/linear-cases.js'
import { Random } from '../conformance/random.js'
import { rowCases } from '../conformance/row-cases.js'
import { differences } from '../conformance/run-case.js'
import { cpuBackends, describeBackends } from './support.js'

// Every op, on every instruction set this machine has, against the reference, on fresh random inputs each time. To repeat
// a failure: FIREQ_TEST_SEED=<the seed in its message>.
const seed = Number(process.env.FIREQ_TEST_SEED ?? Date.now() % 2 ** 31)
const random = new Random(seed)
const cases = [...rowCases(random), ...linearCases(random), ...attentionCases(random)]

describeBackends(cpuBackends({ poison: true }), '$name agrees with the reference', ({ backend }) => {
  it.each(cases)('$name', async (opCase) => {
    const found = await differences(backend, opCase)
    expect(found, `seed ${seed}`).toEqual([])
  })
})
