import { describe, expect, it } from 'vitest'
import { fireq, hasControls } from './support.js'

interface Health {
  readonly node: string
  readonly cores: number
  readonly memoryBytes: number
  readonly backends: readonly { name: string; usable: boolean; detail: string }[]
  readonly environment: Record<string, string>
}

describe('doctor', () => {
  it('shows every backend as JSON, and the variables it sees', async () => {
    const { code, stdout } = await fireq(['doctor', '--json'], { env: { FIREQ_THREADS: '3' } })
    expect(code).toBe(0)
    const health = JSON.parse(stdout) as Health
    expect(health.node).toBe(process.version)
    expect(health.cores).toBeGreaterThan(0)
    expect(health.memoryBytes).toBeLessThan(2 ** 50)
    expect(health.environment).toMatchObject({ FIREQ_THREADS: '3' })
    expect(health.backends.map(({ name }) => name)).toEqual(['reference', 'cpu', 'cuda'])
    expect(health.backends[0]).toMatchObject({ usable: true })
    for (const { detail } of health.backends) expect(detail).not.toBe('')
  })

  it('says why a backend is not there, with the fix', async () => {
    const { code, stdout } = await fireq(['doctor'], { env: { FIREQ_ADDON: '/no/such/addon.node' } })
    expect(code).toBe(0)
    expect(stdout).toMatch(/^cpu +not usable: .*could not be loaded/m)
    expect(stdout).toContain('/no/such/addon.node')
    expect(stdout).toContain('To fix it')
    expect(hasControls(stdout)).toBe(false)
  })

  it('fails on a variable that stops every command', async () => {
    const { code, stdout, stderr } = await fireq(['doctor', '--json'], { env: { FIREQ_ISA: 'mmx' } })
    expect(code).toBe(1)
    expect(stderr).toMatch(/^fireq: Expected .* for environment variable FIREQ_ISA but received 'mmx'\n$/)
    expect(JSON.parse(stdout)).toMatchObject({ problem: expect.stringContaining('FIREQ_ISA') })
  })
})
