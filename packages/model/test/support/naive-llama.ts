import type { LoadSource } from '../../src/index.js'

/**
 * Llama as the papers write it, in FP64, a whole text at once, with no cache, no program and no fusion: the oracle for
 * what the program computes. Returns logits and, per layer, keys after RoPE and the residual stream.
 */
export async function naiveLlama(
  source: LoadSource,
  ids: ArrayLike<number>,
  /** Of each rotated pair; left out: θ^(−2i / headDim). */
  inverseFrequencies?: readonly number[],
): Promise<{ logits: number[][]; layers: { keys: number[][]; hidden: number[][] }[] }> {
  const { config } = source
  const { headDim, numAttentionHeads, numKeyValueHeads, rmsNormEps, rope } = config
  const load = async (name: string): Promise<number[]> => {
    const tensor = await source.tensor(name)
    if (tensor.kind !== 'dense' || tensor.dtype !== 'f32') throw new Error('the oracle reads FP32 only')
    return Array.from(tensor.data)
  }
  const linear = async (x: number[][], path: string): Promise<number[][]> => {
    const weight = await load(`${path}.weight`)
    const bias = source.has(`${path}.bias`) ? await load(`${path}.bias`) : undefined
    const [N, K] = source.shape(`${path}.weight`) as [number, number]
    return x.map((v) =>
      Array.from({ length: N }, (_, n) => v.reduce((sum, xk, k) => sum + xk * weight[n * K + k]!, bias?.[n] ?? 0)),
    )
  }
  const norm = async (x: number[][], name: string): Promise<number[][]> => {
    const weight = await load(name)
    return x.map((v) => {
      const rms = Math.sqrt(v.reduce((sum, xi) => sum + xi * xi, 0) / v.length + rmsNormEps)
      return v.map((xi, i) => (xi / rms) * weight[i]!)
    })
  }
  const frequencies =
    inverseFrequencies ?? Array.from({ length: headDim / 2 }, (_, i) => rope.theta ** ((-2 * i) / headDim))
  const rotated = (x: number[][]): number[][] =>
    x.map((v, position) =>
      v.map((value, at) => {
        const i = at % headDim
        const half = headDim / 2
        const angle = position * frequencies[i % half]!
        const partner = i < half ? -v[at + half]! : v[at - half]!
        return value * Math.cos(angle) + partner * Math.sin(angle)
      }),
    )

  const embedding = await load('model.embed_tokens.weight')
  let hidden = Array.from(ids, (id) => embedding.slice(id * config.hiddenSize, (id + 1) * config.hiddenSize))
  const add = (a: number[][], b: number[][]): number[][] => a.map((row, t) => row.map((v, i) => v + b[t]![i]!))
  const layers: { keys: number[][]; hidden: number[][] }[] = []
  for (let layer = 0; layer < config.numHiddenLayers; layer++) {
    const path = `model.layers.${layer}`
    const x = await norm(hidden, `${path}.input_layernorm.weight`)
    const q = rotated(await linear(x, `${path}.self_attn.q_proj`))
    const k = rotated(await linear(x, `${path}.self_attn.k_proj`))
    const v = await linear(x, `${path}.self_attn.v_proj`)
    const attended = q.map((row, t) =>
      Array.from({ length: numAttentionHeads }, (_, h) => {
        const at = Math.floor(h / (numAttentionHeads / numKeyValueHeads)) * headDim
        const query = row.slice(h * headDim, (h + 1) * headDim)
        const e = k
          .slice(0, t + 1)
          .map((key) => Math.exp(query.reduce((sum, qi, i) => sum + qi * key[at + i]!, 0) / Math.sqrt(headDim)))
        const total = e.reduce((sum, ei) => sum + ei, 0)
        return query.map((_, i) => e.reduce((sum, ei, p) => sum + (ei / total) * v[p]![at + i]!, 0))
      }).flat(),
    )
    hidden = add(hidden, await linear(attended, `${path}.self_attn.o_proj`))
    const y = await norm(hidden, `${path}.post_attention_layernorm.weight`)
    const gate = await linear(y, `${path}.mlp.gate_proj`)
    const up = await linear(y, `${path}.mlp.up_proj`)
    const activated = gate.map((row, t) => row.map((g, i) => (g / (1 + Math.exp(-g))) * up[t]![i]!))
    hidden = add(hidden, await linear(activated, `${path}.mlp.down_proj`))
    layers.push({ keys: k, hidden })
  }
  const head = config.tieWordEmbeddings ? 'model.embed_tokens' : 'lm_head'
  return { logits: await linear(await norm(hidden, 'model.norm.weight'), head), layers }
}
