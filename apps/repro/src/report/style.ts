import { fonts, palette } from './theme.js'

/** The report's style sheet: follows the reader's choice of light or dark, prints on paper in light. */
export function styleSheet(): string {
  const variables = (theme: keyof typeof palette): string =>
    Object.entries(palette[theme])
      .map(([name, value]) => `--${name}:${value}`)
      .join(';')
  return `
:root{${variables('light')}}
@media screen and (prefers-color-scheme:dark){:root{${variables('dark')}}}
*{box-sizing:border-box}
body{margin:0;background:var(--background);color:var(--text);font:16px/1.55 ${fonts.text};-webkit-text-size-adjust:100%}
main{max-width:780px;margin:0 auto;padding:56px 24px 72px}
h1{font-size:30px;line-height:1.2;letter-spacing:-.015em;margin:0 0 20px;font-weight:700}
h2{font-size:21px;line-height:1.3;letter-spacing:-.01em;margin:56px 0 12px;padding-top:20px;border-top:1px solid var(--line)}
h3{font-size:15px;margin:36px 0 10px;font-weight:600}
p{margin:0 0 12px}
.caveat{background:var(--surface);border-left:3px solid var(--accent);padding:10px 14px;border-radius:0 4px 4px 0;font-size:14.5px}
.scroll{overflow-x:auto;margin:20px 0}
table{border-collapse:collapse;width:100%;font-size:14px;line-height:1.45}
caption{text-align:left;color:var(--muted);padding-bottom:6px}
th,td{text-align:left;vertical-align:top;padding:6px 14px 6px 0}
th:last-child,td:last-child{padding-right:0}
th{font-weight:600;color:var(--muted);font-size:12.5px;vertical-align:bottom}
thead tr:last-child th{border-bottom:1px solid var(--line)}
th.group{text-align:right;padding-bottom:0;color:var(--text)}
.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td:first-child{white-space:nowrap;font-weight:500}
tbody tr+tr td{border-top:1px solid var(--line)}
figure{margin:0}
svg{display:block;width:100%;height:auto}
figcaption{color:var(--muted);font-size:14px;margin-top:10px}
details{margin:16px 0;font-size:14px}
summary{cursor:pointer;color:var(--muted)}
pre{overflow-x:auto;background:var(--surface);padding:14px 16px;border-radius:6px;font:12.5px/1.5 ${fonts.code}}
code{font-family:${fonts.code};font-size:.92em}
footer{margin-top:64px;padding-top:16px;border-top:1px solid var(--line);color:var(--muted);font-size:13px}
footer p{margin:0 0 4px}
`
}
