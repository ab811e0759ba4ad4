import type { TopLevelSpec } from 'vega-lite'
import { type ChannelMaxima, type ObservedTap, observedTaps } from '../evaluation/observe.js'
import type { Figure } from '../report/report.js'
import { color } from '../report/theme.js'
import type { RowResult, SubjectResult } from './result.js'

const WIDTH = 732
const TAP_LABELS: Readonly<Record<ObservedTap, string>> = {
  scaledKeys: 'keys, as cached',
  qkvInput: 'input of q, k, v',
  oInput: 'input of o',
  gateUpInput: 'input of gate, up',
  downInput: 'input of down',
}
const states = ['before smoothing', 'after smoothing'] as const
const stateColors = { domain: [...states], range: [color('before'), color('after')] }

/** KL divergence of every quantized row, with Q and P in FP8 and without. */
export function divergenceFigure({ rows }: SubjectResult): Figure {
  const quantized = rows.filter(({ bitsPerWeight }) => bitsPerWeight !== undefined)
  const values = quantized.flatMap(({ label, off, on }) => [
    { row: label, run: 'Q, P in BF16', kl: off.kl.mean },
    { row: label, run: 'Q, P in FP8', kl: on.kl.mean },
  ])
  const runs = ['Q, P in BF16', 'Q, P in FP8']
  const y = { field: 'row', type: 'nominal', sort: quantized.map(({ label }) => label), title: null } as const
  const yOffset = { field: 'run', sort: runs } as const
  const spec: TopLevelSpec = {
    width: WIDTH - 120,
    height: { step: 15 },
    data: { values },
    encoding: {
      y: { ...y, scale: { paddingInner: 0.35 }, axis: { labelColor: color('text'), labelFontSize: 12, grid: false } },
      yOffset,
      x: {
        field: 'kl',
        type: 'quantitative',
        title: 'KL divergence from the unquantized model, nats per token',
        axis: { tickCount: 6 },
      },
    },
    layer: [
      {
        mark: { type: 'bar', cornerRadiusEnd: 2 },
        encoding: {
          color: {
            field: 'run',
            type: 'nominal',
            scale: { domain: runs, range: [color('series-2'), color('series-5')] },
            legend: { orient: 'top', direction: 'horizontal' },
          },
        },
      },
      {
        mark: { type: 'text', align: 'left', baseline: 'middle', dx: 4, fontSize: 10, fill: color('muted') },
        encoding: { text: { field: 'kl', type: 'quantitative', format: '.3g' } },
      },
    ],
  }
  return { title: 'KL divergence by row', caption: 'Shorter is better; 0 is the unquantized model.', spec }
}

/** Keys as they are cached, channel by channel, in the layer where they stand out most. */
export function keysFigure(before: readonly ChannelMaxima[], after: readonly ChannelMaxima[], headDim: number): Figure {
  const ratios = before.map(({ scaledKeys }) => peak(scaledKeys))
  const layer = ratios.indexOf(Math.max(...ratios))
  const values = [before, after].flatMap((layers, s) =>
    relativeToMedian(layers[layer].scaledKeys).map((ratio, channel) => ({
      state: states[s],
      channel,
      ratio,
    })),
  )
  const spec: TopLevelSpec = {
    data: { values },
    facet: {
      row: {
        field: 'state',
        type: 'nominal',
        sort: [...states],
        header: { labelAngle: 0, labelAlign: 'left', labelOrient: 'top' },
      },
    },
    spacing: 14,
    spec: {
      width: WIDTH - 60,
      height: 110,
      mark: { type: 'rule', strokeWidth: Math.min(2, (WIDTH - 60) / values.length) },
      encoding: {
        x: {
          field: 'channel',
          type: 'quantitative',
          title: `channel (heads of ${headDim})`,
          axis: { grid: false, values: channelTicks(values.length / 2, headDim) },
          scale: { nice: false, domain: [0, values.length / 2] },
        },
        y: { field: 'ratio', type: 'quantitative', title: 'max |K| ÷ median', axis: { tickCount: 4 } },
        y2: { datum: 0 },
        color: { field: 'state', type: 'nominal', scale: stateColors, legend: null },
      },
    },
  }
  return {
    title: `Keys by channel, layer ${layer}`,
    caption: `Largest |K| of each channel after RoPE and scaling, as it meets the INT4 cache, relative to the median channel. All channels of a head share one scale per token: a channel far above the others costs them their digits.`,
    spec,
  }
}

/** Channels from the largest to the smallest, of each input, over all layers. */
export function inputsFigure(before: readonly ChannelMaxima[], after: readonly ChannelMaxima[]): Figure {
  const taps = observedTaps.filter((tap) => tap !== 'scaledKeys')
  const values = taps.flatMap((tap) =>
    [before, after].flatMap((layers, s) => {
      const sorted = layers.flatMap((maxima) => relativeToMedian(maxima[tap])).sort((a, b) => b - a)
      return ranks(sorted.length).map((rank) => ({
        tap: TAP_LABELS[tap],
        state: states[s],
        share: ((rank + 1) / sorted.length) * 100,
        ratio: sorted[rank],
      }))
    }),
  )
  const spec: TopLevelSpec = {
    data: { values: values.filter(({ ratio }) => ratio >= 1) },
    facet: { field: 'tap', type: 'nominal', sort: taps.map((tap) => TAP_LABELS[tap]) },
    columns: 2,
    spacing: 24,
    spec: {
      width: WIDTH / 2 - 60,
      height: 130,
      mark: { type: 'line', strokeWidth: 2, interpolate: 'step-after' },
      encoding: {
        x: {
          field: 'share',
          type: 'quantitative',
          scale: { type: 'log' },
          title: 'channels, largest first, %',
          axis: { grid: false, values: [0.1, 1, 10, 50], format: '~g' },
        },
        y: {
          field: 'ratio',
          type: 'quantitative',
          scale: { type: 'log', base: 2 },
          title: 'max |x| ÷ median',
          axis: { values: [1, 2, 4, 8, 16, 32, 64, 128], format: '~g' },
        },
        color: {
          field: 'state',
          type: 'nominal',
          scale: stateColors,
          legend: { orient: 'top', direction: 'horizontal' },
        },
      },
    },
  }
  return {
    title: 'Inputs of the linear layers',
    caption:
      "Largest |x| of each channel, relative to the layer's median channel, all layers together: the half above it. Both axes are logarithmic.",
    spec,
  }
}

/** How far the largest channel stands above the median, layer by layer. */
/** How far the largest channel stands above the median one. */
export function peaksFigure(before: readonly ChannelMaxima[], after: readonly ChannelMaxima[]): Figure {
  const values = observedTaps.flatMap((tap) =>
    [before, after].flatMap((layers, s) =>
      layers.map((maxima, layer) => ({
        tap: TAP_LABELS[tap],
        state: states[s],
        layer,
        ratio: peak(maxima[tap]),
      })),
    ),
  )
  const spec: TopLevelSpec = {
    data: { values },
    facet: { field: 'tap', type: 'nominal', sort: observedTaps.map((tap) => TAP_LABELS[tap]) },
    columns: 3,
    spacing: 24,
    spec: {
      width: WIDTH / 3 - 50,
      height: 120,
      mark: { type: 'line', point: { size: 24 }, strokeWidth: 1.5 },
      encoding: {
        x: { field: 'layer', type: 'quantitative', axis: { grid: false, tickMinStep: 1, format: 'd' } },
        y: {
          field: 'ratio',
          type: 'quantitative',
          scale: { type: 'log', base: 2 },
          title: 'largest ÷ median',
          axis: { values: [1, 2, 4, 8, 16, 32, 64, 128], format: '~g' },
        },
        color: {
          field: 'state',
          type: 'nominal',
          scale: stateColors,
          legend: { orient: 'top', direction: 'horizontal' },
        },
      },
    },
  }
  return {
    title: 'Outliers by layer',
    caption: 'The largest channel of each activation, relative to the median channel; 1 would be perfectly even.',
    spec,
  }
}

/** Rounding errors of the weights, and what becomes of the residual stream, by layer and row. */
export function errorFigures({ rows }: SubjectResult): Figure[] {
  const byLayer = (errorsOf: (row: RowResult) => readonly number[] | undefined) =>
    rows.flatMap((row) => (errorsOf(row) ?? []).map((error, layer) => ({ row: row.label, layer, error: error * 100 })))
  return [
    {
      title: 'Weight error by layer',
      caption:
        "Relative error of the weights, root mean square over a layer's seven matrices, against the weights that smoothing left. It counts all weights alike, whatever their inputs.",
      spec: linesByLayer(
        byLayer((row) => row.weightErrors),
        '‖W − Ŵ‖ / ‖W‖, %',
      ),
    },
    {
      title: 'Error of the residual stream by layer',
      caption: 'What the layers up to this one have done to the hidden states, with everything quantized but Q and P.',
      spec: linesByLayer(
        byLayer((row) => row.hiddenErrors),
        '‖h − ĥ‖ / ‖h‖, %',
      ),
    },
  ]
}

function linesByLayer(values: readonly { row: string; layer: number; error: number }[], title: string): TopLevelSpec {
  const labels = [...new Set(values.map(({ row }) => row))]
  return {
    data: { values: [...values] },
    width: WIDTH - 180,
    height: 220,
    mark: { type: 'line', point: { size: 28 } },
    encoding: {
      x: { field: 'layer', type: 'quantitative', axis: { grid: false, tickMinStep: 1, format: 'd' } },
      y: { field: 'error', type: 'quantitative', scale: { zero: false }, title },
      color: { field: 'row', type: 'nominal', scale: { domain: labels }, legend: { symbolType: 'stroke' } },
      // The first line is broad: it stays visible under one that is equal.
      strokeWidth: { condition: { test: { field: 'row', equal: labels[0] }, value: 6 }, value: 1.75 },
    },
  }
}

function median(values: ArrayLike<number>): number {
  return Array.from(values).sort((a, b) => a - b)[Math.floor(values.length / 2)]
}

function relativeToMedian(channelMax: Float32Array): number[] {
  const middle = median(channelMax)
  return Array.from(channelMax, (max) => max / middle)
}

/** How far the largest channel stands above the median one. */
export function peak(channelMax: Float32Array): number {
  return Math.max(...relativeToMedian(channelMax))
}

/** At most some hundred ranks, dense at the beginning: what a logarithmic axis can show. */
function ranks(count: number): number[] {
  const steps = Array.from({ length: 160 }, (_, i) => Math.round(count ** (i / 159)) - 1)
  return [...new Set(steps)]
}

function channelTicks(channels: number, headDim: number): number[] {
  const every = headDim * Math.ceil(channels / headDim / 8)
  return Array.from({ length: Math.floor(channels / every) + 1 }, (_, i) => i * every)
}
