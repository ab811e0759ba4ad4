import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import ts from 'typescript'
import { describe, expect, it } from 'vitest'
import { packageFolders, root, spawn } from './support.js'

const block = (marker: string, language: string): RegExp =>
  new RegExp(`<!-- ${marker} -->\\s*\`\`\`${language}\\n([\\s\\S]*?)\`\`\``)

describe.each(packageFolders)("the example in %s's README", (folder) => {
  it('prints what it says', async () => {
    const readme = readFileSync(join(root, folder, 'README.md'), 'utf8')
    const example = block('example', 'ts').exec(readme)?.[1]
    const output = block('output', 'text').exec(readme)?.[1]
    if (example === undefined || output === undefined) throw new Error('the README has no example with its output')

    const { outputText } = ts.transpileModule(example, {
      compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext },
    })
    const build = join(root, folder, 'build')
    if (!existsSync(build)) mkdirSync(build)
    const file = join(build, 'readme-example.mjs')
    writeFileSync(file, outputText)
    const { code, stdout, stderr } = await spawn('node', [file])
    expect(code, stderr).toBe(0)
    expect(stdout.trimEnd()).toBe(output.trimEnd())
  })
})
