import { z } from 'zod'
import { object, optional, whole } from '../recipe/fields.js'
import { definePart } from '../recipe/part.js'

/** Which tokens the statistics are taken from. Only read where another part needs statistics. */
export const calibration = definePart({
  key: 'calibration',
  schema: object({
    windows: whole(1, 1_000_000).default(10),
    /** Tokens a window. */
    length: whole(1, 10_000_000).default(2048),
    seed: whole(0, 2 ** 31 - 1).default(0),
    /** A text that the caller may load if it has no other; the pipeline itself takes token ids. */
    data: optional(z.string({ error: 'a path' })),
  }).prefault({}),
})
