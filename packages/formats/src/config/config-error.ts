/** A JSON file that says something this library can't run: the message names the file and the field. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
}
