import type { KvFormat } from '@fireq/formats'
import { kvName } from '../options.js'
import { formatBytes, formatNumber, formatWhole, printable } from '../terminal/format.js'
import { type Column, formatTable } from '../terminal/table.js'
import type { TensorErrors } from './errors.js'
import type { ListedTensor, Listing } from './listing.js'
import type { ValueStatistics } from './statistics.js'

/** All that was found out, before it becomes text or JSON. */
export interface Inspection {
  readonly listing: Listing
  /** Those asked for. */
  readonly tensors: readonly ListedTensor[]
  readonly statistics?: ReadonlyMap<string, ValueStatistics>
  readonly errors?: TensorErrors
  /** What the errors are measured against. */
  readonly errorsFrom?: string
}

export function inspectionJson({ listing, tensors, statistics, errors, errorsFrom }: Inspection): unknown {
  const { model, metadata, problem, path } = listing
  const { layers: _layers, ...provenance } = model?.quantization?.provenance ?? {}
  return {
    path,
    ...(metadata && { metadata }),
    ...(problem && { problem: problem.message }),
    ...(model && { config: model.config }),
    ...(model?.quantization && {
      quantization: { ...withoutLists(model.quantization), provenance, bitsPerWeight: bitsOf(quantizedOf(listing)) },
    }),
    totals: totalsOf(listing.tensors),
    ...(errorsFrom !== undefined && { errorsAgainst: errorsFrom }),
    tensors: tensors.map(({ read: _read, ...tensor }) => ({
      ...tensor,
      ...(tensor.values > 0 && { bitsPerValue: bitsOf([tensor]) }),
      ...(errors?.has(tensor.name) && { relativeError: errors.get(tensor.name) }),
      ...(statistics?.has(tensor.name) && { statistics: statistics.get(tensor.name) }),
    })),
  }
}

function withoutLists({
  weights: _weights,
  keyScale,
  ...rest
}: NonNullable<NonNullable<Listing['model']>['quantization']>) {
  return { ...rest, keyScale: keyScale !== undefined }
}

export function formatInspection(inspection: Inspection): string {
  const { listing, tensors, statistics, errors, errorsFrom } = inspection
  const blocks = [headline(listing).join('\n')]
  blocks.push(statistics ? statisticsTable(tensors, statistics, errors) : tensorTable(tensors, errors))
  if (errors && !statistics)
    blocks.push(`relative error of the weights by layer, against ${errorsFrom}\n${layerTable(errors)}`)
  return blocks.join('\n\n')
}

function headline(listing: Listing): string[] {
  const { path, model, metadata } = listing
  const { tensors, values, bytes, files } = totalsOf(listing.tensors)
  const lines = [printable(path)]
  if (model) {
    const c = model.config
    lines.push(
      `${c.modelType}: ${c.numHiddenLayers} layers, hidden ${c.hiddenSize}, intermediate ${c.intermediateSize}, ${c.numAttentionHeads} query and ${c.numKeyValueHeads} key-value heads of ${c.headDim}, vocabulary ${c.vocabSize}, context ${c.maxPositionEmbeddings}`,
    )
  }
  const size = `${tensors} tensors, ${formatWhole(values)} values, ${formatBytes(bytes)}`
  lines.push(files === 1 ? size : `${size} in ${files} files`)
  lines.push(...quantizationLines(listing))
  for (const [key, value] of Object.entries(metadata ?? {}))
    lines.push(`metadata ${printable(key)}: ${printable(value)}`)
  return lines
}

function quantizationLines(listing: Listing): string[] {
  const quantization = listing.model?.quantization
  if (!quantization) return []
  const { activations, queries, probabilities, kv, keyScale, recipe, provenance } = quantization
  const weights = quantizedOf(listing)
  const name = (recipe as { name?: unknown } | undefined)?.name
  const from = provenance?.generator
  return [
    `quantized: ${weights.length} weights at ${bitsOf(weights).toFixed(3)} bits; the whole model at ${bitsOf(listing.tensors).toFixed(3)} bits per value`,
    `runs with: activations ${activations}, queries ${queries}, probabilities ${probabilities}, kv ${kvText(kv)}${keyScale ? ', keys scaled after RoPE' : ''}`,
    ...(typeof name === 'string'
      ? [`recipe: ${printable(name)}${typeof from === 'string' ? `, by ${printable(from)}` : ''}`]
      : []),
  ]
}

function kvText(kv: KvFormat): string {
  return kvName(kv)
}

function quantizedOf({ tensors }: Listing): ListedTensor[] {
  return tensors.filter(({ quantized }) => quantized)
}

function bitsOf(tensors: readonly ListedTensor[]): number {
  const { bytes, values } = totalsOf(tensors)
  return values === 0 ? 0 : (8 * bytes) / values
}

function totalsOf(tensors: readonly ListedTensor[]): { tensors: number; values: number; bytes: number; files: number } {
  const sum = (of: (tensor: ListedTensor) => number) => tensors.reduce((total, tensor) => total + of(tensor), 0)
  const files = new Set(tensors.map(({ file }) => file)).size
  return { tensors: tensors.length, values: sum((t) => t.values), bytes: sum((t) => t.bytes), files }
}

/** Tensors that differ only in their layer's number share a line. */
function tensorTable(tensors: readonly ListedTensor[], errors: TensorErrors | undefined): string {
  const groups = new Map<string, ListedTensor[]>()
  for (const tensor of tensors) {
    const key = JSON.stringify([tensor.name.replace(/\.\d+\./, '.*.'), withoutExponent(tensor.dtype), tensor.shape])
    groups.set(key, [...(groups.get(key) ?? []), tensor])
  }
  const columns: Column[] = [
    { title: 'tensor' },
    { title: 'type' },
    { title: 'shape' },
    { title: 'bits', align: 'right' },
    { title: 'size', align: 'right' },
  ]
  if (errors) columns.push({ title: 'error', align: 'right' })
  const rows = [...groups.values()].map((alike) => {
    const [{ name, shape, dtype }] = alike
    const several = alike.length > 1
    const row = [
      several ? `${name.replace(/\.\d+\./, '.*.')} (${alike.length})` : name,
      alike.every((tensor) => tensor.dtype === dtype) ? dtype : withoutExponent(dtype).replace('e4m3', 'e4m3 ×2^-i'),
      `[${shape.join(', ')}]`,
      formatNumber(bitsOf(alike)),
      formatBytes(totalsOf(alike).bytes),
    ]
    return errors ? [...row, errorText(mean(alike.flatMap((tensor) => errors.get(tensor.name) ?? [])))] : row
  })
  return formatTable(columns, rows)
}

/** A type without its tensor scale, which differs from layer to layer. */
function withoutExponent(dtype: string): string {
  return dtype.replace(/ ×2\^-\d+/, '')
}

function statisticsTable(
  tensors: readonly ListedTensor[],
  statistics: ReadonlyMap<string, ValueStatistics>,
  errors: TensorErrors | undefined,
): string {
  const right = ['min', 'max', 'mean', 'rms', 'not finite', ...(errors ? ['error'] : [])]
  const columns: Column[] = [
    ...['tensor', 'type', 'shape'].map((title) => ({ title })),
    ...right.map((title) => ({ title, align: 'right' as const })),
  ]
  const rows = tensors.map(({ name, dtype, shape }) => {
    const s = statistics.get(name)
    const numbers = s ? [s.min, s.max, s.mean, s.rms, s.notFinite].map((v) => formatNumber(v)) : ['', '', '', '', '']
    const row = [name, dtype, `[${shape.join(', ')}]`, ...numbers]
    return errors ? [...row, errorText(errors.get(name))] : row
  })
  return formatTable(columns, rows)
}

/** A line for each layer, a column for each kind of weight. */
function layerTable(errors: TensorErrors): string {
  const layers = new Map<string, Map<string, number>>()
  const kinds = new Set<string>()
  for (const [name, error] of errors) {
    const [, layer, kind] = /\.(\d+)\.(?:.*\.)?(\w+?)(?:_proj)?\.weight$/.exec(name) ?? []
    if (layer === undefined || kind === undefined) continue
    kinds.add(kind)
    layers.set(layer, (layers.get(layer) ?? new Map()).set(kind, error))
  }
  const columns = ['layer', ...kinds, 'mean'].map((title) => ({ title, align: 'right' as const }))
  const rows = [...layers].map(([layer, byKind]) => [
    layer,
    ...[...kinds].map((kind) => errorText(byKind.get(kind))),
    errorText(mean([...byKind.values()])),
  ])
  return formatTable(columns, rows)
}

function mean(values: readonly number[]): number | undefined {
  return values.length === 0 ? undefined : values.reduce((a, b) => a + b, 0) / values.length
}

function errorText(error: number | undefined): string {
  return error === undefined ? '' : `${(100 * error).toFixed(2)} %`
}
