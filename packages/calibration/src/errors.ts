/** Calibration that can't go on; the message says at which layer and why. */
export class CalibrationError extends Error {
  override readonly name = 'CalibrationError'
}
