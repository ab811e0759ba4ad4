import type { JsonNode } from './json-node.js'
import { type DummyPrefix, SPACE_MARK } from './sentencepiece-bpe.js'
import { LLAMA3_SPLIT_PATTERN } from './split-pattern.js'

/** What a `tokenizer.json` does around its model. */
export type Pipeline =
  | { kind: 'byte-level'; dropsLeadingSpace: false }
  | { kind: 'sentencepiece'; dropsLeadingSpace: boolean; prefix: DummyPrefix; splitAtSpaces: boolean }

/** @throws Error naming the first part that isn't one of Llama's */
export function readPipeline(root: JsonNode): Pipeline {
  const [normalizer, preTokenizer, decoder] = ['normalizer', 'pre_tokenizer', 'decoder'].map((key) => root.get(key))
  if (!preTokenizer.absent && preTokenizer.type() !== 'Metaspace') {
    if (!normalizer.absent) normalizer.fail('no normalizer beside byte-level BPE')
    checkLlama3Split(preTokenizer)
    decoder.get('type').oneOf('ByteLevel')
    return { kind: 'byte-level', dropsLeadingSpace: false }
  }
  const spaces = preTokenizer.absent ? readNormalizer(normalizer) : readMetaspace(preTokenizer, normalizer)
  return { kind: 'sentencepiece', dropsLeadingSpace: readDecoder(decoder), ...spaces }
}

/** A Split by Llama 3's pattern, then ByteLevel without its own. */
function checkLlama3Split(node: JsonNode): void {
  const steps = sequence(node, 'pretokenizers')
  if (steps.map((step) => step.type()).join() !== 'Split,ByteLevel') node.fail('Metaspace or Split and ByteLevel')
  const [split, byteLevel] = steps
  split.get('pattern').get('Regex').oneOf(LLAMA3_SPLIT_PATTERN)
  split.get('behavior').oneOf('Isolated')
  split.get('invert').oneOf(false, null)
  byteLevel.get('add_prefix_space').oneOf(false)
  byteLevel.get('use_regex').oneOf(false)
}

type Spaces = { prefix: DummyPrefix; splitAtSpaces: boolean }

/** Prepend a space mark, and Replace spaces by marks. */
function readNormalizer(node: JsonNode): Spaces {
  let where: DummyPrefix['where'] = 'never'
  let replaces = false
  for (const step of node.absent ? [] : sequence(node, 'normalizers')) {
    step.get('type').oneOf('Prepend', 'Replace')
    if (step.type() === 'Prepend') {
      step.get('prepend').oneOf(SPACE_MARK)
      where = 'every'
    } else {
      step.get('pattern').get('String').oneOf(' ')
      step.get('content').oneOf(SPACE_MARK)
      replaces = true
    }
  }
  if (!replaces) node.fail(`a normalizer that replaces spaces by ${SPACE_MARK}`)
  return { prefix: { where, unlessSpaced: false }, splitAtSpaces: false }
}

/** Both in one, newer files; older ones say add_prefix_space instead of prepend_scheme. */
function readMetaspace(node: JsonNode, normalizer: JsonNode): Spaces {
  if (!normalizer.absent) normalizer.fail('no normalizer beside Metaspace')
  node.get('replacement').oneOf(SPACE_MARK)
  const scheme = node.get('prepend_scheme')
  scheme.oneOf('always', 'first', 'never', null)
  const where = scheme.absent
    ? node.get('add_prefix_space').boolean(true)
      ? 'every'
      : 'never'
    : ({ always: 'every', first: 'first', never: 'never' } as const)[scheme.string() as 'always' | 'first' | 'never']
  return { prefix: { where, unlessSpaced: true }, splitAtSpaces: node.get('split').boolean(true) }
}

/** Whether the decoder drops a leading space. */
function readDecoder(node: JsonNode): boolean {
  let drops = false
  for (const step of sequence(node, 'decoders')) {
    step.get('type').oneOf('Replace', 'ByteFallback', 'Fuse', 'Strip', 'Metaspace')
    if (step.type() === 'Replace') {
      step.get('pattern').get('String').oneOf(SPACE_MARK)
      step.get('content').oneOf(' ')
    } else if (step.type() === 'Strip') {
      step.get('content').oneOf(' ')
      step.get('start').oneOf(1)
      step.get('stop').oneOf(0)
      drops = true
    } else if (step.type() === 'Metaspace') {
      drops = step.get('prepend_scheme').absent
        ? step.get('add_prefix_space').boolean(true)
        : step.get('prepend_scheme').value !== 'never'
    }
  }
  return drops
}

/** The name of the token that the post-processor puts first, if it does. */
export function readBosName(node: JsonNode): string | undefined {
  let name: string | undefined
  for (const step of node.absent ? [] : sequence(node, 'processors')) {
    step.get('type').oneOf('ByteLevel', 'TemplateProcessing')
    if (step.type() !== 'TemplateProcessing') continue
    const template = step
      .get('single')
      .array()
      .map((part) => Object.keys(part.object()).join())
    if (template.join() === 'Sequence') continue
    if (template.join() !== 'SpecialToken,Sequence')
      step.get('single').fail('at most one special token, before the text')
    name = step.get('single').array()[0].get('SpecialToken').get('id').string()
  }
  return name
}

/** The steps of a Sequence, or the one step that it is. */
function sequence(node: JsonNode, key: string): JsonNode[] {
  return node.type() === 'Sequence' ? node.get(key).array() : [node]
}
