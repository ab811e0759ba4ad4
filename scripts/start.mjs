// `npm start`: install, build, and the quick reproduction on the stand-in model. Arguments after `--` go to it.
import { build, install, run } from './workspace.mjs'

install()
build()
run('node', ['apps/repro/dist/main.js', ...(process.argv.length > 2 ? process.argv.slice(2) : ['quick'])])
