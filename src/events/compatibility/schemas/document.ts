import type { JsonSchema } from '../../contracts/schema-dialect.ts'

/** A JSON Schema that is not a boolean. */
export type SchemaObject = Readonly<Record<string, unknown>>

/** A schema at its location in a document. */
export interface SchemaNode {
  /** Equal keys mean equal schemas, in any document: the same text, and the same definitions behind its references. */
  readonly key: string
  readonly schema: SchemaObject | boolean
  readonly document: SchemaDocument
}

/** Documents of one comparison assign the same number to equal texts. */
export type TextNumbers = Map<string, number>

/** Thrown if a comparison would take too long; the comparison then reports that. */
export class TooComplex extends Error {}

/** Deeper than any library writes, and deeper than a payload may be (512 levels, two schema levels for each). */
const maxDepth = 2000

/** What is known about an object of a document from the start. */
interface Entry {
  readonly text: number
  readonly hasReference: boolean
  /** The nearest enclosing schema with an `$id`, which may be the object itself; otherwise the root. */
  readonly resource: SchemaObject
}

/** An indexed JSON Schema: which parts are equal, and where references lead. Schemas with the same text share a number. */
export class SchemaDocument {
  readonly root: SchemaNode
  readonly #numbers: TextNumbers
  readonly #base: SchemaObject
  readonly #number: number
  readonly #entries = new Map<object, Entry>()
  readonly #nodes = new Map<object, SchemaNode>()
  readonly #added = new Map<string, SchemaNode>()
  readonly #uris = new Map<SchemaObject, string>()
  readonly #resources = new Map<string, SchemaObject>()
  readonly #anchors = new Map<SchemaObject, Map<string, SchemaObject>>()
  readonly #dynamicAnchors = new Map<string, SchemaObject[]>()

  /**
   * Whether the document describes what is read, not what is written. Readers ignore properties that they do not know,
   * whatever a schema states about additional properties.
   */
  readonly isReader: boolean

  constructor(root: JsonSchema, numbers: TextNumbers, isReader: boolean) {
    this.isReader = isReader
    this.#numbers = numbers
    this.#base = isObject(root) ? root : {}
    this.#uris.set(this.#base, 'schema:/')
    this.#number = this.#index(this.#base, this.#base, 0).text
    this.root = this.nodeOf(root)
  }

  /** A part of the document as a schema; a value that is not a schema allows everything. */
  nodeOf(value: unknown): SchemaNode {
    if (typeof value === 'boolean') return { key: String(value), schema: value, document: this }
    const schema = isObject(value) ? value : {}
    const known = this.#nodes.get(schema)
    if (known !== undefined) return known
    const { text, hasReference, resource } = this.#entries.get(schema) ?? this.#index(schema, this.#base, 0)
    // The meaning of a reference depends on everything around it.
    const around = resource === this.#base ? '' : `.${this.#entries.get(resource)?.text ?? 0}`
    const node: SchemaNode = {
      key: hasReference ? `${text}@${this.#number}${around}` : String(text),
      schema,
      document: this,
    }
    this.#nodes.set(schema, node)
    return node
  }

  /** A schema that is not in the document, to be combined with schemas that are. */
  added(schema: SchemaObject): SchemaNode {
    const text = JSON.stringify(schema)
    const known = this.#added.get(text) ?? this.nodeOf(schema)
    this.#added.set(text, known)
    return known
  }

  /** Where the reference of a schema leads; undefined if it leads nowhere, or may lead to several places. */
  resolve(node: SchemaNode, keyword: string, reference: string): SchemaNode | undefined {
    const from = isObject(node.schema) ? this.#entries.get(node.schema)?.resource : undefined
    const [uri, fragment] = splitAt(reference, '#')
    const resource = uri === '' ? (from ?? this.#base) : this.#resources.get(this.#toUri(uri, from))
    if (resource === undefined) return undefined
    if (fragment === '') return this.nodeOf(resource)
    if (fragment.startsWith('/')) return this.#follow(resource, fragment.slice(1).split('/'))
    if (keyword === '$dynamicRef') {
      const [only, another] = this.#dynamicAnchors.get(fragment) ?? []
      if (another !== undefined) return undefined
      if (only !== undefined) return this.nodeOf(only)
    }
    const anchored = this.#anchors.get(resource)?.get(fragment)
    return anchored === undefined ? undefined : this.nodeOf(anchored)
  }

  #toUri(reference: string, resource: SchemaObject | undefined): string {
    const base = (resource === undefined ? undefined : this.#uris.get(resource)) ?? 'schema:/'
    return URL.parse(reference, base)?.href ?? reference
  }

  #follow(start: SchemaObject, parts: readonly string[]): SchemaNode | undefined {
    let current: unknown = start
    for (const part of parts) {
      const key = decode(part).replaceAll('~1', '/').replaceAll('~0', '~')
      if (current === null || typeof current !== 'object' || !Object.hasOwn(current, key)) return undefined
      current = (current as SchemaObject)[key]
    }
    return typeof current === 'boolean' || isObject(current) ? this.nodeOf(current) : undefined
  }

  /** Numbers an object by its content, after all objects inside it. */
  #index(value: object, around: SchemaObject, depth: number): Entry {
    const known = this.#entries.get(value)
    if (known !== undefined) return known
    if (depth > maxDepth) throw new TooComplex()
    const resource = isObject(value) ? this.#resourceOf(value, around) : around
    let hasReference = false
    const numberOf = (item: unknown): string => {
      if (item === null || typeof item !== 'object') return JSON.stringify(item) ?? 'null'
      const entry = this.#index(item, resource, depth + 1)
      hasReference ||= entry.hasReference
      return `#${entry.text}`
    }
    const text = Array.isArray(value)
      ? `[${value.map(numberOf).join(',')}]`
      : `{${Object.keys(value)
          .toSorted()
          .map((key) => `${JSON.stringify(key)}:${numberOf((value as SchemaObject)[key])}`)
          .join(',')}}`
    if (isObject(value))
      hasReference ||= [value['$ref'], value['$dynamicRef'], value['$recursiveRef']].some(
        (reference) => typeof reference === 'string',
      )
    let number = this.#numbers.get(text)
    if (number === undefined) {
      number = this.#numbers.size + 1
      this.#numbers.set(text, number)
    }
    const entry = { text: number, hasReference, resource }
    this.#entries.set(value, entry)
    return entry
  }

  #resourceOf(schema: SchemaObject, around: SchemaObject): SchemaObject {
    const { $id, $anchor, $dynamicAnchor } = schema
    let resource = around
    if (typeof $id === 'string') {
      resource = schema
      const uri = this.#toUri($id, around)
      this.#uris.set(schema, uri)
      this.#resources.set(uri, schema)
    }
    for (const anchor of [$anchor, $dynamicAnchor])
      if (typeof anchor === 'string') {
        const anchors = this.#anchors.get(resource) ?? new Map<string, SchemaObject>()
        this.#anchors.set(resource, anchors.set(anchor, schema))
      }
    if (typeof $dynamicAnchor === 'string')
      this.#dynamicAnchors.set($dynamicAnchor, [...(this.#dynamicAnchors.get($dynamicAnchor) ?? []), schema])
    return resource
  }
}

export function isObject(value: unknown): value is SchemaObject {
  return value !== null && typeof value === 'object' && !Array.isArray(value)
}

/** The properties of an object, by name; empty for a value that is not an object. */
export function entriesOf(value: unknown): [string, unknown][] {
  return isObject(value) ? Object.entries(value) : []
}

export function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? (value as unknown[]) : []
}

export function textsOf(value: unknown): string[] {
  return listOf(value).filter((item) => typeof item === 'string')
}

function splitAt(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator)
  return at === -1 ? [text, ''] : [text.slice(0, at), text.slice(at + separator.length)]
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
