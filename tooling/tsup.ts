import { defineConfig, type Options } from 'tsup'

/** The one build configuration: ESM for Node 20, declarations, source maps. A package passes only what differs. */
export function packageConfig(options: Options = {}): ReturnType<typeof defineConfig> {
  return defineConfig({
    entry: ['src/index.ts'],
    format: 'esm',
    target: 'node20',
    platform: 'node',
    dts: true,
    sourcemap: true,
    clean: true,
    ...options,
  })
}
