import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll } from 'vitest'

const bin = fileURLToPath(new URL('../dist/main.js', import.meta.url))

export const root: string = fileURLToPath(new URL('../../..', import.meta.url))
/** The small trained model of this repository. */
export const standin: string = join(root, 'models', 'standin')

export interface Outcome {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface Running {
  readonly child: ChildProcess
  readonly done: Promise<Outcome>
  /** Settles once stderr or stdout has the text; rejects where the process ends before. */
  said(text: string): Promise<void>
}

/** Starts the built command line, its output piped: not a terminal. */
export function start(
  args: readonly string[],
  { env = {}, input = '' }: { env?: NodeJS.ProcessEnv; input?: string } = {},
): Running {
  if (!existsSync(bin)) throw new Error(`${bin} isn't built: run npx tsup in apps/fireq`)
  const child = spawn(process.execPath, [bin, ...args], { env: { ...process.env, FIREQ_BACKEND: '', ...env } })
  const output = { stdout: '', stderr: '' }
  const listeners = new Set<() => void>()
  for (const stream of ['stdout', 'stderr'] as const) {
    child[stream].setEncoding('utf8').on('data', (text: string) => {
      output[stream] += text
      for (const listener of listeners) listener()
    })
  }
  child.stdin.on('error', () => undefined) // it may end without reading
  child.stdin.end(input)
  const done = new Promise<Outcome>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => resolve({ code, ...output }))
  })
  const said = (text: string) =>
    new Promise<void>((resolve, reject) => {
      const look = () => (output.stdout.includes(text) || output.stderr.includes(text)) && resolve()
      listeners.add(look)
      look()
      done.then(({ stderr }) => reject(new Error(`it ended without saying ${text}: ${stderr}`)), reject)
    })
  return { child, done, said }
}

/** Runs a command line to its end. */
export function fireq(args: readonly string[], options?: Parameters<typeof start>[1]): Promise<Outcome> {
  return start(args, options).done
}

/** A folder that goes when the tests of this file are done. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'fireq-cli-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** Whether a text has control characters other than line ends. */
export function hasControls(text: string): boolean {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/.test(text)
}

/** An error as people must see it: one line, no stack, and nothing on stdout. */
export function isOneLineError({ stdout, stderr }: Outcome): boolean {
  return stdout === '' && /^fireq: [^\n]+\n$/.test(stderr) && !/\n\s+at /.test(stderr) && !hasControls(stderr)
}
