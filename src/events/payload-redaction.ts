import type { EventCatalogue, EventDefinition } from './catalogue.ts'
import { segmentsOf } from './redact-paths.ts'

/** What stands in the place of a value that is not shown. */
const redactedText = '[redacted]'

/** Deeper than any payload that publish takes. What plain SQL stored deeper is withheld from there on. */
const maxDepth = 600

/** The paths of one event type, as a tree: what follows each name, and what follows `*`. */
interface PathNode {
  readonly names: Map<string, PathNode>
  any: PathNode | undefined
  /** A path ends here: the value is not shown. */
  isEnd: boolean
}

const trees = new WeakMap<EventDefinition, PathNode>()

/**
 * The payload as logs, dashboards and APIs may show it: what the type's `redact` names is replaced by `[redacted]`. The
 * payload of a type that the catalogue does not know is withheld whole, because nobody has said what of it may be shown.
 * Gives what it was given where nothing is to be hidden, and never changes it; only what leads to a hidden value is copied.
 *
 * @param payload - JSON, in the shape of any version
 */
export function redactPayload(catalogue: EventCatalogue, type: string, payload: unknown): unknown {
  const definition = Object.hasOwn(catalogue, type) ? catalogue[type] : undefined
  if (definition === undefined) return payload === null ? null : redactedText
  if (definition.redact === undefined) return payload
  let tree = trees.get(definition)
  if (tree === undefined) {
    tree = toTree(definition.redact)
    trees.set(definition, tree)
  }
  return redactAt(payload, [tree], 0)
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

/** @param nodes - where the paths stand that have led here */
function redactAt(value: unknown, nodes: readonly PathNode[], depth: number): unknown {
  if (value === null || typeof value !== 'object') return value
  if (depth > maxDepth) return redactedText
  return Array.isArray(value) ? redactItems(value, nodes, depth) : redactProperties(value, nodes, depth)
}

/** A name is looked for in the items too: where one value became a list, it stays hidden. */
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
  // Defines each property, also one that is called `__proto__`.
  return changed ? Object.fromEntries(shown) : value
}

function redactChild(item: unknown, nodes: readonly PathNode[], depth: number): unknown {
  if (nodes.length === 0) return item
  // Nothing is nothing to hide.
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
