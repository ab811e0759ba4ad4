// `npm test`: install, build, and every test. Arguments after `--` go to vitest.
import { build, install, run } from './workspace.mjs'

install()
build()
run('turbo', ['run', 'typecheck', '--output-logs=new-only', '--log-order=grouped'])
run('biome', ['ci', '.'])
run('vitest', ['run', ...process.argv.slice(2)])
