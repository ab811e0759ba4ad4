/**
 * Colours by name. Plots use them as CSS variables, `var(--…)`, so that one drawing serves light and dark; the values are
 * in the report's style sheet alone.
 */
export const palette = {
  light: {
    background: '#ffffff',
    surface: '#f6f7f9',
    text: '#1c2128',
    muted: '#636c76',
    line: '#d8dee4',
    accent: '#b4450b',
    before: '#8c959f',
    after: '#c2500f',
    'series-1': '#8c959f',
    'series-2': '#1f77b4',
    'series-3': '#17877a',
    'series-4': '#7a5ccc',
    'series-5': '#c2500f',
    'series-6': '#b8860b',
    'series-7': '#b3246b',
  },
  dark: {
    background: '#14171c',
    surface: '#1d2229',
    text: '#e6e9ed',
    muted: '#98a2ad',
    line: '#353c46',
    accent: '#ff9a57',
    before: '#848d97',
    after: '#ff9a57',
    'series-1': '#9aa3ad',
    'series-2': '#6cb2f0',
    'series-3': '#4cc9b5',
    'series-4': '#b39dff',
    'series-5': '#ff9a57',
    'series-6': '#e6c34a',
    'series-7': '#ff7fb8',
  },
} as const

export type ColorName = keyof (typeof palette)['light']

/** A colour for a plot. */
export function color(name: ColorName): string {
  return `var(--${name})`
}

/** Colours for things of one kind, in the order in which they come. */
export const seriesColors: readonly string[] = [1, 2, 3, 4, 5, 6, 7].map((i) => `var(--series-${i})`)

export const fonts = {
  text: 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif',
  code: 'ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace',
} as const
