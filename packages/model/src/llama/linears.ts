import type { LlamaConfig } from '@fireq/formats'

/** A linear layer of the program and the checkpoint's tensors that make it. */
export interface LinearSpec {
  /** The program's name for the weight, such as `layers.0.qkv`. */
  readonly name: string
  /** [N, K] */
  readonly shape: readonly [number, number]
  /** The checkpoint's tensors whose rows make the weight. */
  readonly parts: readonly string[]
  /** The checkpoint's bias vectors, in the same order. */
  readonly biases?: readonly string[]
}

/** The linears of one decoder layer; those that share an input are one. */
export interface LayerLinears {
  readonly qkv: LinearSpec
  readonly o: LinearSpec
  readonly gateUp: LinearSpec
  readonly down: LinearSpec
}

/** The linears of a layer in the order of the forward pass. */
export function linearsOf({ qkv, o, gateUp, down }: LayerLinears): LinearSpec[] {
  return [qkv, o, gateUp, down]
}

export function llamaLinears(config: LlamaConfig, layer: number): LayerLinears {
  const { hiddenSize, intermediateSize, headDim, numAttentionHeads, numKeyValueHeads } = config
  const linear = (name: string, shape: readonly [number, number], modules: string[], bias: boolean): LinearSpec => {
    const paths = modules.map((module) => `model.layers.${layer}.${module}`)
    const parts = paths.map((path) => `${path}.weight`)
    return { name: `layers.${layer}.${name}`, shape, parts, ...(bias && { biases: paths.map((p) => `${p}.bias`) }) }
  }
  const [attention, mlp] = ['self_attn', 'mlp']
  const querySize = numAttentionHeads * headDim
  return {
    qkv: linear(
      'qkv',
      [querySize + 2 * numKeyValueHeads * headDim, hiddenSize],
      [`${attention}.q_proj`, `${attention}.k_proj`, `${attention}.v_proj`],
      config.attentionBias,
    ),
    o: linear('o', [hiddenSize, querySize], [`${attention}.o_proj`], config.attentionBias),
    gateUp: linear(
      'gateUp',
      [2 * intermediateSize, hiddenSize],
      [`${mlp}.gate_proj`, `${mlp}.up_proj`],
      config.mlpBias,
    ),
    down: linear('down', [hiddenSize, intermediateSize], [`${mlp}.down_proj`], config.mlpBias),
  }
}
