import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadRecipe, parseRecipe, RecipeError, recipeNames, weightChoice } from '../src/index.js'

let dir: string
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'fireq-recipe-'))
})
afterAll(() => rm(dir, { recursive: true }))

const message = (json: unknown): string => {
  try {
    parseRecipe(json, 'mine.json')
  } catch (error) {
    expect(error).toBeInstanceOf(RecipeError)
    return (error as Error).message
  }
  throw new Error('the recipe was accepted')
}

describe('parseRecipe', () => {
  it('fills in defaults', () => {
    expect(parseRecipe({})).toEqual({
      smoothing: {},
      weights: { groupSize: 128, scale: 'bf16', lookupRounding: false, vllmScales: false, search: 'absmax' },
      overrides: [],
      activations: 'e4m3',
      queries: 'none',
      probabilities: 'f32',
      kv: { dtype: 'bf16' },
      calibration: { windows: 10, length: 2048, seed: 0 },
    })
  })

  it('takes "off" for a part of the method, as if it were left out', () => {
    const smoothing = { channelWise: { qkv: 'off', down: { type: 1, constant: 2 } }, preRope: 'off', postRope: 'off' }
    expect(parseRecipe({ smoothing }).smoothing).toEqual({ channelWise: { down: { type: 1, constant: 2 } } })
    expect(parseRecipe({ smoothing: 'off' }).smoothing).toEqual({})
  })

  it('gives a recipe that is its own recipe', () => {
    const recipe = parseRecipe({ name: 'x', weights: { scale: 'e4m3' }, overrides: [{ match: '**', skip: true }] })
    expect(parseRecipe(JSON.parse(JSON.stringify(recipe)))).toEqual(recipe)
  })

  it.each<[unknown, string]>([
    [{ weight: {} }, `mine.json can't be used: there is no field "weight"`],
    [{ weights: { bits: 4 } }, `mine.json can't be used: weights: there is no field "bits"`],
    [{ weights: { scale: 'fp8' } }, `weights.scale: expected "bf16" or "e4m3" but received "fp8"`],
    [
      { weights: { groupSize: 128.5 } },
      'weights.groupSize: expected a whole number from 2 to 65536 but received 128.5',
    ],
    [{ weights: { groupSize: 12 } }, 'weights: expected a multiple of 8 for groupSize but received 12'],
    [{ weights: { tensorScale: 'auto' } }, 'weights: expected tensorScale to be "off" with bf16 scales'],
    [{ weights: { tensorScale: 15 } }, 'weights.tensorScale: expected a whole number from 0 to 14 but received 15'],
    [{ weights: { search: 'magic' } }, 'weights.search: expected "absmax"'],
    [{ activations: 'int8' }, 'activations: expected "e4m3" or "none" but received "int8"'],
    [{ kv: 'int4' }, 'kv: expected {"dtype": "bf16"}'],
    [{ kv: { dtype: 'int8' } }, 'kv.dtype: expected {"dtype": "bf16"}'],
    [{ kv: { dtype: 'int4', symmetric: 1, scale: 'bf16' } }, 'kv.symmetric: expected true or false but received 1'],
    [{ kv: { dtype: 'bf16', scale: 'bf16' } }, 'kv: there is no field "scale"'],
    [{ smoothing: { preRope: { alpha: 0 } } }, 'smoothing.preRope.alpha: expected a positive number but received 0'],
    [{ smoothing: { preRope: {} } }, 'smoothing.preRope.alpha: expected a positive number but received nothing'],
    [{ smoothing: { channelWise: { down: { type: 3, constant: 1 } } } }, 'smoothing.channelWise.down.type: expected 0'],
    [{ smoothing: { rotate: true } }, 'smoothing: there is no field "rotate"'],
    [{ smoothing: { postRope: { beta: 8, topK: 8, partners: 'both' } } }, 'partners: expected "own" or "tied"'],
    [{ overrides: [{ skip: true }] }, 'overrides[0].match: expected a tensor name'],
    [{ overrides: [{ match: '/(/' }] }, 'overrides[0].match: expected a regular expression but received Invalid'],
    [{ overrides: [{ match: 'a', group: 1 }] }, 'overrides[0]: there is no field "group"'],
    [{ calibration: { windows: 0 } }, 'calibration.windows: expected a whole number from 1'],
    [[], `mine.json can't be used: expected an object but received []`],
    [null, 'expected an object but received null'],
  ])('refuses %j', (json, expected) => {
    expect(message(json)).toContain(expected)
  })

  it('names every field that is wrong', () => {
    expect(message({ activations: 1, queries: 2, extra: 3 }).split('\n')).toEqual([
      `mine.json can't be used:`,
      '  activations: expected "e4m3" or "none" but received 1',
      '  queries: expected "e4m3" or "none" but received 2',
      '  there is no field "extra"',
    ])
  })
})

describe('loadRecipe', () => {
  it('knows every file of recipes/ by its name', async () => {
    const folder = new URL('../recipes/', import.meta.url)
    const files = (await readdir(folder)).sort()
    expect([...recipeNames].map((name) => `${name}.json`).sort()).toEqual(files)
    for (const name of recipeNames) {
      const recipe = await loadRecipe(name)
      expect(recipe.name).toBe(name)
      expect(recipe).toEqual(parseRecipe(JSON.parse(await readFile(new URL(`${name}.json`, folder), 'utf8'))))
    }
  })

  it("has the authors' constants", async () => {
    const { smoothing } = await loadRecipe('fireq-llama3-8b')
    expect(smoothing).toEqual({
      channelWise: { gateUp: { type: 2, constant: 0.0096 }, down: { type: 2, constant: 0.015 } },
      valueMultiplier: 0.9,
      preRope: { alpha: 8 },
      postRope: { beta: 8, topK: 8, partners: 'own' },
    })
  })

  it('has scales for vLLM in BF16 groups of 128 alone', () => {
    const wrong = { weights: { groupSize: 64, vllmScales: true } }
    expect(() => parseRecipe(wrong)).toThrow(
      'expected bf16 scales of groups of 128 with vllmScales but received bf16 scales of groups of 64',
    )
    const options = weightChoice(parseRecipe({ weights: { vllmScales: true } }), 'model.layers.0.mlp.up_proj.weight')
    expect(options).toMatchObject({ vllmScales: true, scale: 'bf16' })
  })

  it('reads files, and says which one is wrong', async () => {
    const path = join(dir, 'recipe.json')
    await writeFile(path, '{"queries": "e4m3"}')
    expect((await loadRecipe(path)).queries).toBe('e4m3')
    await writeFile(path, '{"queries": }')
    await expect(loadRecipe(path)).rejects.toThrow(`${path} isn't JSON: `)
    await writeFile(path, '{"queries": "no"}')
    await expect(loadRecipe(path)).rejects.toThrow(`${path} can't be used: queries: `)
    await expect(loadRecipe(join(dir, 'none'))).rejects.toThrow(`${join(dir, 'none')} can't be read: ENOENT`)
  })
})

describe('weightChoice', () => {
  const choice = (overrides: object[], tensor: string, weights = {}) =>
    weightChoice(parseRecipe({ weights, overrides }), tensor)
  const down = 'model.layers.3.mlp.down_proj.weight'

  it('is the weights of the recipe where nothing matches', () => {
    expect(choice([{ match: 'model.layers.*.mlp.up_proj.weight', skip: true }], down)).toEqual({
      ...parseRecipe({}).weights,
      tensorScale: 'off',
    })
  })

  it('matches names, stars, double stars and regular expressions', () => {
    const matches = (match: string, tensor: string) => choice([{ match, skip: true }], tensor) === 'skip'
    expect(matches(down, down)).toBe(true)
    expect(matches('model.layers.*.mlp.down_proj.weight', down)).toBe(true)
    expect(matches('model.*.down_proj.weight', down)).toBe(false)
    expect(matches('**.down_proj.weight', down)).toBe(true)
    expect(matches('mlp.down_proj', down)).toBe(false)
    expect(matches('model.layers.3*', down)).toBe(false)
    expect(matches('/layers\\.(3|4)\\./', down)).toBe(true)
    expect(matches('/layers\\.(4|5)\\./', down)).toBe(false)
    expect(matches('modelxlayers.3.mlp.down_proj.weight', down)).toBe(false)
  })

  it('lets later overrides win, field by field', () => {
    const overrides = [
      { match: '**', skip: true },
      { match: '**.down_proj.*', groupSize: 64 },
      { match: '/layers.3/', skip: false, lookupRounding: true },
    ]
    expect(choice(overrides, 'model.layers.2.mlp.down_proj.weight')).toBe('skip')
    expect(choice(overrides, down)).toMatchObject({ groupSize: 64, lookupRounding: true, scale: 'bf16' })
  })

  it('chooses a tensor scale where scales are E4M3, unless the recipe says otherwise', () => {
    expect(choice([], down, { scale: 'e4m3' })).toMatchObject({ tensorScale: 'auto' })
    expect(choice([], down, { scale: 'e4m3', tensorScale: 3 })).toMatchObject({ tensorScale: 3 })
    expect(choice([], down, { scale: 'e4m3', tensorScale: 'off' })).toMatchObject({ tensorScale: 'off' })
    expect(choice([], down, { scale: 'bf16' })).toMatchObject({ tensorScale: 'off' })
  })

  it('chooses the tensor scale anew with another scale type', () => {
    const to = (scale: string) => [{ match: '**', scale }]
    expect(choice(to('bf16'), down, { scale: 'e4m3', tensorScale: 4 })).toMatchObject({ tensorScale: 'off' })
    expect(choice(to('e4m3'), down)).toMatchObject({ tensorScale: 'auto' })
    expect(choice(to('e4m3'), down, { scale: 'e4m3', tensorScale: 4 })).toMatchObject({ tensorScale: 4 })
  })
})
