import type { Experiment } from '../experiment.js'
import { quick } from './quick.js'
import { table2 } from './table2.js'

/** Every experiment, in the order in which `list` shows them. */
export const experiments: readonly Experiment[] = [quick, table2]
