import { availableParallelism } from 'node:os'
import { defineConfig, type ViteUserConfig } from 'vitest/config'

// Tests of packages read the sources (the `fireq-source` export condition); tests in `tests/` and of the apps spawn
// the built output.
const config: ViteUserConfig = defineConfig({
  resolve: { conditions: ['fireq-source', 'node', 'import', 'default'] },
  ssr: { resolve: { conditions: ['fireq-source', 'node', 'import', 'default'] } },
  test: {
    include: ['packages/**/test/**/*.test.ts', 'apps/**/test/**/*.test.ts', 'tests/**/*.test.ts'],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    maxWorkers: availableParallelism(), // one less is the default, which leaves one of two cores idle
    maxConcurrency: availableParallelism(), // of tests in a file that say that they may
  },
})

export default config
