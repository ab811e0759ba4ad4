/** Everything that decides the numbers. */
export interface Table2Settings {
  readonly model?: string
  readonly data?: string
  readonly calibrationData?: string
  /** Windows to evaluate; if left out, as many as leave tokens to calibrate on. */
  readonly windows?: number
  readonly window: number
  readonly calibrationWindows: number
  readonly compute: 'bf16' | 'f32'
  /** On the model as it is, with outliers injected, or both. */
  readonly outliers: 'off' | 'on' | 'both'
  /** Tokens that the plots look at. */
  readonly observedTokens: number
}
