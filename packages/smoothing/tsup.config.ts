import { packageConfig } from '../../tooling/tsup.js'

export default packageConfig() as ReturnType<typeof packageConfig>
