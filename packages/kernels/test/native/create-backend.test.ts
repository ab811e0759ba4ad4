import { describe, expect, it } from 'vitest'
import { readEnvironment } from '../../src/env.js'
import { BackendError, backendReport, createBackend, ops } from '../../src/index.js'
import { explainFailure, requireAddon } from '../../src/native/load.js'
import { describeNative, instructionSets } from './support.js'

describe('createBackend', () => {
  it('makes what it is asked for, or says why not', () => {
    expect(createBackend('reference').name).toBe('reference')
    expect(() => createBackend('cuda')).toThrow(BackendError)
    expect(() => createBackend('gpu' as 'cpu')).toThrow(
      "Expected auto, reference, cpu or cuda for the backend but received 'gpu'",
    )
  })

  it('reports every backend, each usable or with a reason', () => {
    const report = backendReport()
    expect(report.map(({ name }) => name)).toEqual(['reference', 'cpu', 'cuda'])
    for (const { detail } of report) expect(detail).not.toBe('')
  })
})

describe('explainFailure', () => {
  it('lists every attempt and ends with a fix', () => {
    const text = explainFailure([
      { from: '@fireq/kernels-linux-x64-gnu', error: 'Cannot find module' },
      { from: '/a/fireq.node', error: "version `GLIBC_2.38' not found" },
    ])
    expect(text).toContain('@fireq/kernels-linux-x64-gnu: Cannot find module')
    expect(text).toContain("/a/fireq.node: version `GLIBC_2.38' not found")
    expect(text.split('\n').at(-1)).toMatch(/^To fix it: .*build it here/)
  })
})

describe('environment variables', () => {
  it('are read, and wrong ones refused by name', () => {
    expect(readEnvironment({}).backend).toBe('auto')
    const all = { FIREQ_BACKEND: 'cpu', FIREQ_THREADS: '3', FIREQ_ISA: 'plain', FIREQ_ADDON: '/x.node' }
    expect(readEnvironment(all)).toEqual({ backend: 'cpu', threads: 3, isa: 'plain', addon: '/x.node' })
    expect(() => readEnvironment({ FIREQ_BACKEND: 'gpu' })).toThrow(
      "Expected auto, reference, cpu, cuda for environment variable FIREQ_BACKEND but received 'gpu'",
    )
    for (const bad of ['0', '-1', '1.5', 'many', '1025']) {
      expect(() => readEnvironment({ FIREQ_THREADS: bad })).toThrow(`FIREQ_THREADS but received '${bad}'`)
    }
    expect(() => readEnvironment({ FIREQ_ISA: 'sse' })).toThrow('FIREQ_ISA')
  })
})

describeNative('the addon', () => {
  it('is what auto makes', () => {
    using backend = createBackend('auto', { threads: 1, isa: 'plain' })
    expect([backend.name, backend.description]).toEqual(['cpu', 'C++, plain, 1 thread'])
  })

  it.each(instructionSets)('has a kernel for every op on %s', (isa) => {
    expect(requireAddon().opKinds(isa).toSorted()).toEqual(Object.keys(ops).toSorted())
  })
})
