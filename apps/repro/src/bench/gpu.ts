import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** What nvidia-smi says about a GPU, or undefined where there is none. */
export async function queryGpu(...fields: readonly string[]): Promise<string[] | undefined> {
  try {
    const args = [`--query-gpu=${fields.join(',')}`, '--format=csv,noheader', '--id=0']
    const { stdout } = await run('nvidia-smi', args)
    return stdout.trim().split(/, */)
  } catch {
    return undefined
  }
}

/** "1485 MHz SM, 3201 MHz memory, 690.12 W" at this moment. */
export async function readClocks(): Promise<string | undefined> {
  const values = await queryGpu('clocks.sm', 'clocks.mem', 'power.draw')
  return values && `${values[0]} SM, ${values[1]} memory, ${values[2]}`
}
