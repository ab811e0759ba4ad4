import { execFile } from 'node:child_process'
import { copyFile, mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createSafetensors, encodeBf16, modelTensors, parseModelConfig } from '@fireq/formats'
import { seededUniform } from '@fireq/model'

const root: string = join(dirname(fileURLToPath(import.meta.url)), '../../..')
export const standinDir: string = join(root, 'models/standin')
export const binary: string = join(root, 'apps/repro/dist/main.js')

export interface Outcome {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs the built program to its end; sends SIGINT when `interruptAt` appears on stderr. */
export function repro(
  args: readonly string[],
  interruptAt?: string,
  env: Readonly<Record<string, string>> = {},
): Promise<Outcome> {
  return new Promise((done) => {
    const child = execFile(
      process.execPath,
      [binary, ...args],
      { env: { ...process.env, NO_COLOR: '1', ...env }, maxBuffer: 1 << 26 },
      (error, stdout, stderr) => done({ code: error ? Number(error.code ?? -1) : 0, stdout, stderr }),
    )
    let seen = ''
    child.stderr?.on('data', (text: string) => {
      if (interruptAt === undefined || seen.includes(interruptAt)) return
      seen += text
      if (seen.includes(interruptAt)) child.kill('SIGINT')
    })
  })
}

/** A random Llama of one layer with the stand-in's tokenizer: the smallest whose linears have groups of 128. */
export async function writeTinyModel(dir: string): Promise<void> {
  const config = {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_size: 128,
    intermediate_size: 256,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    head_dim: 64,
    vocab_size: 4096,
    max_position_embeddings: 128,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: true,
    hidden_act: 'silu',
    bos_token_id: 0,
    eos_token_id: 1,
  }
  await mkdir(dir, { recursive: true })
  await writeFile(join(dir, 'config.json'), JSON.stringify(config))
  await copyFile(join(standinDir, 'tokenizer.json'), join(dir, 'tokenizer.json'))
  const tensors = modelTensors(parseModelConfig(config, 'config.json')).flatMap((group) => group.tensors)
  const specs = tensors.map(({ name, shape }) => ({ name, dtype: 'bf16' as const, shape }))
  const uniform = seededUniform(7)
  await using file = await createSafetensors(join(dir, 'model.safetensors'), specs)
  for (const { name, shape } of tensors) {
    const size = shape.reduce((product, dim) => product * dim, 1)
    const random = Float32Array.from({ length: size }, () => (shape.length === 1 ? 1 : (uniform() - 0.5) / 4))
    await file.write(name, encodeBf16(random))
  }
  await file.finish()
}
