export { type CheckpointOptions, type CheckpointWriter, createCheckpoint } from './create-checkpoint.js'
export { CheckpointError } from './error.js'
export { type FireqMetadata, parseFireqMetadata, readFireqMetadata, type WeightFormat } from './metadata.js'
export { type ModelSource, openModel } from './open-model.js'
