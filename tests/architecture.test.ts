import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { root, spawn } from './support.js'

const cruise = (cwd: string) => spawn('depcruise', ['--config', '.dependency-cruiser.cjs', 'packages', 'apps'], { cwd })

/** A repository of a few one-line files under the project's own rules. */
async function cruiseTree(files: Record<string, string>): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'fireq-layers-'))
  try {
    for (const file of ['.dependency-cruiser.cjs', 'tsconfig.base.json']) cpSync(join(root, file), join(folder, file))
    for (const [file, text] of Object.entries({ 'apps/a/src/main.ts': 'export {}', ...files })) {
      mkdirSync(dirname(join(folder, file)), { recursive: true })
      writeFileSync(join(folder, file), text)
    }
    const { stdout, stderr } = await cruise(folder)
    return stdout + stderr
  } finally {
    rmSync(folder, { recursive: true })
  }
}

describe('the layer order', () => {
  it('holds in this repository, without cycles', async () => {
    const { code, stdout, stderr } = await cruise(root)
    expect(stdout + stderr).toContain('no dependency violations found')
    expect(code).toBe(0)
  })

  it('is broken by an import of a later package', async () => {
    const report = await cruiseTree({
      'packages/formats/src/index.ts': "import '../../model/src/index.js'",
      'packages/model/src/index.ts': 'export {}',
    })
    expect(report).toContain('layer-formats')
  })

  it('is broken by smoothing importing the engine', async () => {
    const report = await cruiseTree({
      'packages/smoothing/src/index.ts': "import '../../kernels/src/index.js'",
      'packages/kernels/src/index.ts': 'export {}',
    })
    expect(report).toContain('smoothing-needs-only-formats')
  })

  it('is broken by a cycle', async () => {
    const report = await cruiseTree({
      'packages/formats/src/a.ts': "import './b.js'",
      'packages/formats/src/b.ts': "import './a.js'",
    })
    expect(report).toContain('no-cycle')
  })
})

describe('dead code', () => {
  it('is nowhere: every export, file and dependency is used', async () => {
    const { code, stdout, stderr } = await spawn('knip', ['--no-progress', '--no-config-hints'])
    expect(stdout + stderr).toBe('')
    expect(code).toBe(0)
  })
})
