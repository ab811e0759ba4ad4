import type { Experiment } from '../experiment.js'
import { runTable2 } from '../table2/run.js'

/** The paper's table 2 and its ablation, on the stand-in or on a model and a text of the user's. */
export const table2: Experiment = {
  name: 'table2',
  summary: "the paper's table 2 and its ablation: perplexity, KL divergence and bits, RTN to FireQ",
  run: (lab) =>
    runTable2(lab, {
      window: lab.settings.model === undefined ? 1024 : 2048,
      windows: lab.settings.model === undefined && lab.settings.data === undefined ? 16 : undefined,
      calibrationWindows: 10,
      compute: 'bf16',
      outliers: lab.settings.model === undefined ? 'both' : 'off',
      observedTokens: 512,
      ...lab.settings,
    }),
}
