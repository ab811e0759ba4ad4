import { describe, expect, it } from 'vitest'
import { fireq, hasControls, isOneLineError, standin } from './support.js'

const commands = ['quantize', 'eval', 'generate', 'inspect', 'doctor']

describe('help', () => {
  it('tells the whole story: every command, an example of each, exit statuses', async () => {
    const { code, stdout, stderr } = await fireq(['--help'])
    expect(code).toBe(0)
    expect(stderr).toBe('')
    for (const command of commands) {
      expect(stdout).toMatch(new RegExp(`^  ${command} `, 'm'))
      expect(stdout).toContain(`$ fireq ${command}`)
    }
    expect(stdout).toContain('130 interrupted')
    expect(hasControls(stdout)).toBe(false)
  })

  it.each(commands)(
    'of %s has its options and those of fireq',
    async (command) => {
      const { code, stdout } = await fireq([command, '--help'])
      expect(code).toBe(0)
      expect(stdout).toContain(`Usage: fireq ${command}`)
      if (command !== 'generate') expect(stdout).toContain('--json')
      expect(stdout).toContain('--verbose')
    },
    20_000,
  )

  it('is on stderr with status 2 where there is no command', async () => {
    const { code, stdout, stderr } = await fireq([])
    expect(code).toBe(2)
    expect(stdout).toBe('')
    expect(stderr).toContain('Usage: fireq')
  })

  it('has the version', async () => {
    expect(await fireq(['--version'])).toEqual({ code: 0, stdout: 'fireq 0.1.0\n', stderr: '' })
  })
})

describe('a command line that is not understood', () => {
  it.each([
    [['evl', standin], /unknown command 'evl' \(Did you mean eval\?\)/],
    [['inspect', standin, '--jsn'], /unknown option '--jsn' \(Did you mean --json\?\)/],
    [['inspect'], /missing required argument 'path'/],
    [['inspect', standin, 'more'], /too many arguments/],
    [['eval', standin], /required option '--data <file>' not specified/],
    [['eval', standin, '--data', 'x', '--window', '1'], /'1' is invalid. Expected a whole number of at least 2/],
    [['eval', standin, '--data', 'x', '--kv', 'int3'], /'int3' is invalid. Allowed choices are f32, bf16, int4,/],
    [['generate', standin, 'x', '--top-p', '0'], /Expected a number in \(0, 1\]/],
    [['generate', standin, 'x', '--temperature', 'warm'], /Expected a number ≥ 0/],
    [['generate', standin, 'x', '--backend', 'gpu'], /Allowed choices are auto, reference, cpu, cuda/],
    [['quantize', standin], /required option '--out <dir>' not specified/],
    [['quantize', standin, '--out', 'x', '--set', 'kv'], /Expected key=value/],
  ])('%j is one line, and status 2', async (args, message) => {
    const outcome = await fireq(args)
    expect(outcome.code).toBe(2)
    expect(outcome.stderr).toMatch(message)
    expect(isOneLineError(outcome)).toBe(true)
  })
})

describe('a failure', () => {
  it('is one line, and with --verbose has the stack', async () => {
    const plain = await fireq(['inspect', '/no/such/file'])
    expect(plain).toMatchObject({ code: 1, stderr: 'fireq: /no/such/file: no such file or directory\n' })
    for (const args of [
      ['--verbose', 'inspect', '/no/such/file'],
      ['inspect', '/no/such/file', '--verbose'],
    ]) {
      const { stderr } = await fireq(args)
      expect(stderr.startsWith(plain.stderr)).toBe(true)
      expect(stderr).toMatch(/\n\s+at /)
    }
  })

  it('names a bad environment variable', async () => {
    const outcome = await fireq(['generate', standin, 'x'], { env: { FIREQ_BACKEND: 'tpu' } })
    expect(outcome.code).toBe(1)
    expect(outcome.stderr).toMatch(/FIREQ_BACKEND but received 'tpu'/)
    expect(isOneLineError(outcome)).toBe(true)
  })
})
