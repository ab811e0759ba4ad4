export * from './numbers/bf16.js'
export * from './numbers/e4m3.js'
export * from './numbers/f16.js'
export type * from './tensor.js'
