import type { ChannelWiseOptions } from './channel-wise.js'
import type { PostRopeOptions } from './post-rope.js'

/** Which transforms smoothLayer applies; what is absent is off. */
export interface SmoothingRecipe {
  readonly channelWise?: ChannelWiseOptions
  /** FireQ's v_mul. */
  readonly valueMultiplier?: number
  readonly preRope?: { readonly alpha: number }
  readonly postRope?: PostRopeOptions & {
    /**
     * own: every channel has its own scale, applied at run time (postRopeScaling, as FireQ). tied: partners share one,
     * folded into the weights (tiedPartnerScaling). Default: own.
     */
    readonly partners?: 'own' | 'tied'
  }
}

/** The constants that FireQ's authors published: for Llama-3-8B, and for the key scaling of other models. */
export const presets: { readonly 'llama-3-8b': SmoothingRecipe; readonly 'keys-only': SmoothingRecipe } = {
  'llama-3-8b': {
    channelWise: { gateUp: { type: 2, constant: 0.0096 }, down: { type: 2, constant: 0.015 } },
    valueMultiplier: 0.9,
    preRope: { alpha: 8 },
    postRope: { beta: 8, topK: 8 },
  },
  'keys-only': { preRope: { alpha: 7.5 }, postRope: { beta: 7.5, topK: 3 } },
}
