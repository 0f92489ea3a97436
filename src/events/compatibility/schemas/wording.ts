import type { Kind, Part, Shape } from './shape.ts'

/** How findings show values: values of schemas, never of events. */
export function list(values: readonly unknown[]): string {
  const shown = values.slice(0, 5).map((value) => short(value))
  return values.length > 5 ? `${shown.join(', ')}, …` : shown.join(', ')
}

export function short(value: unknown): string {
  const text = JSON.stringify(value) ?? 'undefined'
  return text.length > 60 ? `${text.slice(0, 60)}…` : text
}

export function article(type: string): string {
  if (type === 'null') return type
  return /^[aeio]/.test(type) ? `an ${type}` : `a ${type}`
}

/** The JSON Schema types of some kinds. */
export function typesOfKinds(kinds: ReadonlySet<Kind>): readonly string[] {
  return [...kinds].flatMap((kind): string[] => {
    if (kind === 'fraction') return ['number']
    return kind === 'integer' && kinds.has('fraction') ? [] : [kind]
  })
}

/** The name of a part's type, as its schema states it. */
export function typeName({ shape, kind }: Part): string {
  if (kind === 'fraction' || (kind === 'integer' && shape.kinds.has('fraction'))) return 'number'
  return kind
}

export function isAnything({ kinds, values }: Shape): boolean {
  return kinds.size === 7 && values === undefined
}
