import { execFile } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root: string = join(dirname(fileURLToPath(import.meta.url)), '..')

/** Folders of the published packages, in no particular order. */
export const packageFolders: string[] = readdirSync(join(root, 'packages')).map((name) => join('packages', name))

interface Outcome {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs a program to its end, whatever its status. */
export function spawn(
  command: string,
  args: readonly string[],
  { cwd = root, env = {} }: { cwd?: string; env?: Record<string, string> } = {},
): Promise<Outcome> {
  const path = `${join(root, 'node_modules', '.bin')}:${process.env.PATH}`
  return new Promise((resolve, reject) => {
    execFile(
      command,
      args,
      // pnpm's shims set NODE_PATH, through which an installed package would find this repository's.
      { cwd, env: { ...process.env, NO_COLOR: '1', NODE_PATH: '', PATH: path, ...env }, maxBuffer: 1 << 26 },
      (error, stdout, stderr) => {
        if (error && typeof error.code !== 'number') reject(error)
        else resolve({ code: typeof error?.code === 'number' ? error.code : 0, stdout, stderr })
      },
    )
  })
}
