import { ModelError } from '../errors.js'

/**
 * Where calibration may look. The copy is an FP32 output named `layers.{i}.{point}`, [tokens, columns], of the values
 * before they are quantized:
 *
 * - `qkvInput`, `oInput`, `gateUpInput`, `downInput`: inputs of the linears
 * - `queries`, `keys`: after RoPE, before any key scale; `values`
 * - `scaledKeys`: keys as they are stored, after the key scale
 * - `attentionOutput`, `mlpOutput`: what each block adds to the residual stream
 */
export const tapPoints = [
  'qkvInput',
  'queries',
  'keys',
  'values',
  'scaledKeys',
  'oInput',
  'attentionOutput',
  'gateUpInput',
  'downInput',
  'mlpOutput',
] as const

export type TapPoint = (typeof tapPoints)[number]

/** Name of the output that a tap writes. */
export function tapName(layer: number, point: TapPoint): string {
  return `layers.${layer}.${point}`
}

export function checkTaps(taps: readonly string[]): void {
  const unknown = taps.find((tap) => !(tapPoints as readonly string[]).includes(tap))
  if (unknown !== undefined) {
    throw new ModelError(`Expected taps among ${tapPoints.join(', ')} but received '${unknown}'`)
  }
}
