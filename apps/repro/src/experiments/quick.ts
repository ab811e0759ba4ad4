import type { Experiment, Lab } from '../experiment.js'
import { runTable2 } from '../table2/run.js'

/** Table 2 on the stand-in in a minute or two. */
export const quick: Experiment = {
  name: 'quick',
  summary: 'table2 on the stand-in with few tokens: what `npm start` runs',
  run: (lab) => runTable2(lab, { compute: 'bf16', outliers: 'both', ...sizeFor(lab), ...lab.settings }),
}

/** The reference backend defines the numerics and is slow: it gets what it can do in minutes. */
function sizeFor({ backend, progress }: Lab): SizeSettings {
  if (backend.name !== 'reference') return { windows: 4, window: 512, calibrationWindows: 4, observedTokens: 512 }
  const size = { windows: 2, window: 48, calibrationWindows: 2, observedTokens: 32 }
  progress.note(
    `On the reference backend this run is cut down to ${size.windows * size.window} tokens: its figures show that everything works, and little more.`,
  )
  return size
}

interface SizeSettings {
  readonly windows: number
  readonly window: number
  readonly calibrationWindows: number
  readonly observedTokens: number
}
