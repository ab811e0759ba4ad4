import type { Config, TopLevelSpec } from 'vega-lite'
import type { Figure } from './report.js'
import { color, fonts, seriesColors } from './theme.js'

const axis = {
  labelColor: color('muted'),
  titleColor: color('muted'),
  gridColor: color('line'),
  domainColor: color('line'),
  tickColor: color('line'),
  labelFontSize: 11,
  titleFontSize: 11,
  titleFontWeight: 'normal',
  titlePadding: 8,
} as const

const config: Config = {
  aria: false, // the figure is named as a whole, not mark by mark
  font: fonts.text,
  background: 'transparent',
  view: { stroke: null },
  axis: { ...axis, domain: false, ticks: false, labelPadding: 6 },
  legend: { labelColor: color('text'), titleColor: color('muted'), labelFontSize: 11, labelLimit: 240, title: null },
  header: {
    labelColor: color('text'),
    titleColor: color('muted'),
    labelFontSize: 12,
    labelFontWeight: 600,
    labelAnchor: 'start',
    title: null,
  },
  title: { color: color('text'), fontSize: 12, fontWeight: 600, anchor: 'start' },
  range: { category: [...seriesColors] },
}

/** Draws a figure as SVG, to be put into a page as it is. Vega is loaded when the first plot is drawn. */
export async function drawFigure({ spec, title }: Figure): Promise<string> {
  const [vega, vegaLite] = await Promise.all([import('vega'), import('vega-lite')])
  const compiled = vegaLite.compile({ ...spec, config } as TopLevelSpec).spec
  const view = new vega.View(vega.parse(compiled), { renderer: 'none', logLevel: vega.Error })
  try {
    return makeResponsive(await view.toSVG(), title)
  } finally {
    view.finalize()
  }
}

/** Takes the page's width, up to its own; named for those who can't see it. */
function makeResponsive(svg: string, title: string): string {
  const [, width] = /<svg[^>]* width="([\d.]+)"/.exec(svg)!
  return svg
    .replace(/ xmlns(:\w+)?="[^"]*"/g, '')
    .replace(/ version="[^"]*"/, '')
    .replace(
      / width="[\d.]+" height="[\d.]+"/,
      ` role="img" aria-label="${escapeHtml(title)}" style="max-width:${width}px"`,
    )
}

function escapeHtml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('"', '&quot;').replaceAll('<', '&lt;')
}
