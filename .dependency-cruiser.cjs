// The layer order of docs/architecture.md: a package imports only from packages before it in this list.
const layers = ['formats', 'kernels', 'model', 'calibration', 'smoothing', 'quantize', 'serving']

const upward = layers.map((layer, i) => ({
  name: `layer-${layer}`,
  comment: `packages/${layer} may import only from: ${layers.slice(0, i).join(', ') || 'no other package'}`,
  severity: 'error',
  from: { path: `^packages/${layer}/(src|test)/` },
  to: { path: `^(apps/|packages/(${layers.slice(i + 1).join('|') || '$'})/)` },
}))

module.exports = {
  forbidden: [
    ...upward,
    {
      name: 'smoothing-needs-only-formats',
      comment: 'smoothing takes weights and statistics from anywhere: it must not need the engine',
      severity: 'error',
      from: { path: '^packages/smoothing/src/' },
      to: { path: '^packages/(?!smoothing/|formats/)' },
    },
    { name: 'apps-are-leaves', severity: 'error', from: { path: '^packages/' }, to: { path: '^apps/' } },
    { name: 'no-cycle', severity: 'error', from: {}, to: { circular: true } },
    {
      name: 'no-deep-import',
      comment: "another package's files are reached through its entry points only",
      severity: 'error',
      from: { path: '^(packages|apps)/([^/]+)/src/' },
      to: { path: '^(packages|apps)/(?!$2/)[^/]+/src/(?!index\\.ts$|testing\\.ts$)' },
    },
    { name: 'unresolvable', severity: 'error', from: { path: '/src/' }, to: { couldNotResolve: true } },
  ],
  options: {
    doNotFollow: { path: 'node_modules|/dist/' },
    exclude: { path: '/(dist|node_modules|build|fixtures)/' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.base.json' },
    enhancedResolveOptions: {
      conditionNames: ['fireq-source', 'import', 'node', 'default', 'types'],
      exportsFields: ['exports'],
    },
  },
}
