import type { EventCatalogue, EventDefinition } from './catalogue.ts'
import { printablePath } from '../foundation/text.ts'
import { segmentsOf } from './redact-paths.ts'

/** Shown in place of a hidden value. */
const redactedText = '[redacted]'

/** Deeper than any payload that publish accepts. Deeper values, which only plain SQL can store, are hidden. */
const maxDepth = 600

/** The paths of one event type as a tree: the children by name, and the child for `*`. */
interface PathNode {
  readonly names: Map<string, PathNode>
  any: PathNode | undefined
  /** A path ends here: the value is hidden. */
  isEnd: boolean
}

const trees = new WeakMap<EventDefinition, PathNode>()

/**
 * The payload as logs, dashboards and APIs may show it. Values that the type's `redact` names are replaced by
 * `[redacted]`. The whole payload is hidden if the catalogue does not know the type, because nobody has stated which
 * parts may be shown. Returns its argument if there is nothing to hide, and never modifies it; only the objects that
 * lead to a hidden value are copied.
 *
 * @param payload - JSON, in the shape of any version
 */
export function redactPayload(catalogue: EventCatalogue, type: string, payload: unknown): unknown {
  const definition = Object.hasOwn(catalogue, type) ? catalogue[type] : undefined
  if (definition === undefined) return payload === null ? null : redactedText
  const tree = treeOf(definition)
  return tree === undefined ? payload : redactAt(payload, [tree], 0)
}

/** The paths of a type. Undefined if it has none. */
function treeOf(definition: EventDefinition): PathNode | undefined {
  if (definition.redact === undefined) return undefined
  const known = trees.get(definition)
  if (known !== undefined) return known
  const tree = toTree(definition.redact)
  trees.set(definition, tree)
  return tree
}

/**
 * A payload that somebody has edited as it was shown, with the stored values in the places where {@link redactPayload} had hidden them and
 * `[redacted]` is still there. Items of a list are told by their position, so nothing is put back into a list of another length. Modifies
 * neither; returns its argument if there is nothing to put back.
 *
 * @param edited - JSON
 * @param stored - JSON, in the shape of the same version
 */
export function restoreRedacted(definition: EventDefinition, edited: unknown, stored: unknown): unknown {
  const tree = treeOf(definition)
  return tree === undefined ? edited : restoreAt(edited, stored, [tree], 0)
}

function restoreAt(edited: unknown, stored: unknown, nodes: readonly PathNode[], depth: number): unknown {
  if (nodes.length === 0 || depth > maxDepth || stored === undefined) return edited
  if (nodes.some((node) => node.isEnd)) return edited === redactedText && stored !== null ? stored : edited
  if (!isObject(edited) || !isObject(stored) || Array.isArray(edited) !== Array.isArray(stored)) return edited
  if (Array.isArray(edited) && edited.length !== Object.keys(stored).length) return edited
  let changed = false
  const restored = Object.entries(edited).map(([key, item]: [string, unknown]) => {
    const before: unknown = Object.hasOwn(stored, key) ? stored[key] : undefined
    const ofItem = followedBy(nodes, key)
    const next = restoreAt(item, before, Array.isArray(edited) ? [...nodes, ...ofItem] : ofItem, depth + 1)
    changed ||= next !== item
    return [key, next] as const
  })
  if (!changed) return edited
  return Array.isArray(edited) ? restored.map(([, item]) => item) : Object.fromEntries(restored)
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return value !== null && typeof value === 'object'
}

/**
 * The first place of an edited payload, as a path, where `[redacted]` is in the place of a hidden value that {@link restoreRedacted} could not
 * put back. Undefined if there is none.
 *
 * @param edited - JSON
 * @param stored - JSON, in the shape of the same version
 */
export function placeholderIn(
  definition: EventDefinition,
  edited: unknown,
  stored: unknown,
): string | undefined {
  const tree = treeOf(definition)
  return tree === undefined ? undefined : placeholderAt(edited, stored, [tree], [])
}

function placeholderAt(
  edited: unknown,
  stored: unknown,
  nodes: readonly PathNode[],
  path: readonly string[],
): string | undefined {
  if (nodes.length === 0 || path.length > maxDepth) return undefined
  // The value itself may be this text.
  if (nodes.some((node) => node.isEnd))
    return edited === redactedText && stored !== redactedText ? printablePath(path) : undefined
  if (!isObject(edited)) return undefined
  for (const [key, item] of Object.entries(edited)) {
    const before: unknown = isObject(stored) && Object.hasOwn(stored, key) ? stored[key] : undefined
    const ofItem = followedBy(nodes, key)
    const next = Array.isArray(edited) ? [...nodes, ...ofItem] : ofItem
    const found = placeholderAt(item, before, next, [...path, key])
    if (found !== undefined) return found
  }
  return undefined
}

/**
 * Whether a search may compare this part with payloads of a type: whoever may not see a value must not find out what it is by searching for
 * it. Not if the part touches what the type's `redact` names, or if the catalogue does not know the type. An item of a list may be compared
 * with an item at any other place, so a path with the number of an item counts for all items.
 */
export function mayCompare(catalogue: EventCatalogue, type: string, part: unknown): boolean {
  const definition = Object.hasOwn(catalogue, type) ? catalogue[type] : undefined
  if (definition === undefined) return false
  const tree = treeOf(definition)
  return tree === undefined || !touches(part, [tree], 0)
}

function touches(value: unknown, nodes: readonly PathNode[], depth: number): boolean {
  if (nodes.length === 0) return false
  if (depth > maxDepth || nodes.some((node) => node.isEnd)) return true
  if (value === null || typeof value !== 'object') return false
  if (Array.isArray(value)) {
    const ofItems = nodes.flatMap((node) => [
      ...[...node.names].filter(([name]) => /^\d+$/.test(name)).map(([, child]) => child),
      ...(node.any === undefined ? [] : [node.any]),
    ])
    return value.some((item) => touches(item, [...nodes, ...ofItems], depth + 1))
  }
  return Object.entries(value).some(([key, item]) => touches(item, followedBy(nodes, key), depth + 1))
}

function toTree(paths: readonly string[]): PathNode {
  const root = newNode()
  for (const path of paths) {
    let node = root
    for (const { name, isAny } of segmentsOf(path)) {
      let next: PathNode | undefined = isAny ? node.any : node.names.get(name)
      if (next === undefined) {
        next = newNode()
        if (isAny) node.any = next
        else node.names.set(name, next)
      }
      node = next
    }
    node.isEnd = true
  }
  return root
}

function newNode(): PathNode {
  return { names: new Map(), any: undefined, isEnd: false }
}

/** @param nodes - the positions in the path tree that lead here */
function redactAt(value: unknown, nodes: readonly PathNode[], depth: number): unknown {
  if (value === null || typeof value !== 'object') return value
  if (depth > maxDepth) return redactedText
  return Array.isArray(value) ? redactItems(value, nodes, depth) : redactProperties(value, nodes, depth)
}

/** A name also matches inside array items, so a value stays hidden after it has become a list. */
function redactItems(items: readonly unknown[], nodes: readonly PathNode[], depth: number): unknown {
  let changed = false
  const shown = items.map((item, index) => {
    const next = redactChild(item, [...nodes, ...followedBy(nodes, String(index))], depth)
    changed ||= next !== item
    return next
  })
  return changed ? shown : items
}

function redactProperties(value: object, nodes: readonly PathNode[], depth: number): unknown {
  let changed = false
  const shown = Object.entries(value).map(([key, item]: [string, unknown]) => {
    const next = redactChild(item, followedBy(nodes, key), depth)
    changed ||= next !== item
    return [key, next] as const
  })
  // Defines every property, even one named `__proto__`.
  return changed ? Object.fromEntries(shown) : value
}

function redactChild(item: unknown, nodes: readonly PathNode[], depth: number): unknown {
  if (nodes.length === 0) return item
  // Null has nothing to hide.
  if (nodes.some((node) => node.isEnd)) return item === null ? null : redactedText
  return redactAt(item, nodes, depth + 1)
}

function followedBy(nodes: readonly PathNode[], key: string): PathNode[] {
  const next: PathNode[] = []
  for (const node of nodes) {
    const named = node.names.get(key)
    if (named !== undefined) next.push(named)
    if (node.any !== undefined) next.push(node.any)
  }
  return next
}
