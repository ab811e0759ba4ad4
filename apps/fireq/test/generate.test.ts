import { cpSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { fireq, hasControls, isOneLineError, standin, start, temporaryFolder } from './support.js'

interface Golden {
  readonly prompts: readonly { readonly text: string; readonly greedy_text: string }[]
}

const { prompts } = JSON.parse(readFileSync(join(standin, 'golden.json'), 'utf8')) as Golden
const folder = temporaryFolder()

describe('generate', () => {
  it.each([prompts[1]!, prompts[4]!])(
    "continues '$text' as another implementation does",
    async ({ text, greedy_text }) => {
      const { code, stdout } = await fireq(['generate', standin, text, '--compute', 'f32', '--max-tokens', '10'])
      expect(code).toBe(0)
      const continuation = greedy_text.slice(text.length)
      expect(stdout.trimEnd().length).toBeGreaterThan(10)
      expect(continuation.startsWith(stdout.slice(0, -1))).toBe(true)
    },
  )

  it('reads the prompt from stdin, and shows statistics on stderr only', async () => {
    const args = ['--compute', 'f32', '--max-tokens', '4']
    const given = await fireq(['generate', standin, 'The old man', ...args])
    const piped = await fireq(['generate', standin, '-', ...args, '--stats'], { input: 'The old man' })
    expect(piped.stdout).toBe(given.stdout)
    expect(piped.stderr).toMatch(/^prompt +4 tokens in .* tokens\/s$/m)
    expect(piped.stderr).toMatch(/^decode +4 tokens in .* tokens\/s$/m)
    expect(piped.stderr).toMatch(/^load .* weights, .* KV cache$/m)
    expect(hasControls(given.stderr + piped.stderr)).toBe(false)
  })

  it('draws the same with the same seed', async () => {
    const draw = async (seed: string) =>
      (await fireq(['generate', standin, 'It', '--temperature', '1.5', '--max-tokens', '6', '--seed', seed])).stdout
    const [first, again, other] = await Promise.all([draw('1'), draw('1'), draw('2')])
    expect(again).toBe(first)
    expect(other).not.toBe(first)
  })

  it('stops at Ctrl-C with status 130', async () => {
    const running = start(['generate', standin, 'The old man', '--max-tokens', '1000', '--backend', 'reference'])
    await running.said('backend reference')
    running.child.kill('SIGINT')
    const { code, stderr } = await running.done
    expect(code).toBe(130)
    expect(stderr).toMatch(/^fireq: interrupted$/m)
  })

  it.each([
    ['a prompt longer than the context', ['x '.repeat(2100)], /at most 2048 tokens/],
    ['a prompt without a token', [''], undefined],
  ])('answers %s', async (_, args, message) => {
    const outcome = await fireq([
      'generate',
      standin,
      ...args,
      '--max-tokens',
      '1',
      '--quiet',
      '--backend',
      'reference',
    ])
    if (message === undefined)
      expect(outcome.code).toBe(0) // a beginning-of-text token is a prompt
    else {
      expect(outcome.code).toBe(1)
      expect(outcome.stderr).toMatch(message)
      expect(isOneLineError(outcome)).toBe(true)
    }
  })

  it('names the file of a tokenizer that is missing', async () => {
    const dir = join(folder, 'mute')
    cpSync(standin, dir, { recursive: true })
    rmSync(join(dir, 'tokenizer.json'))
    const outcome = await fireq(['generate', dir, 'x'])
    expect(outcome.code).toBe(1)
    expect(outcome.stderr).toContain('Expected tokenizer.json or tokenizer.model')
    expect(isOneLineError(outcome)).toBe(true)
  })
})
