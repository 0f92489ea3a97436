import type { Kind, Part, Shape } from './shape.ts'

/** How values are shown in findings: schemas' own, never those of events. */
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

/** The types of JSON Schema for some kinds. */
export function typesOfKinds(kinds: ReadonlySet<Kind>): readonly string[] {
  return [...kinds].flatMap((kind): string[] => {
    if (kind === 'fraction') return ['number']
    return kind === 'integer' && kinds.has('fraction') ? [] : [kind]
  })
}

/** What a part is, as its schema says it. */
export function typeName({ shape, kind }: Part): string {
  if (kind === 'fraction' || (kind === 'integer' && shape.kinds.has('fraction'))) return 'number'
  return kind
}

export function isAnything({ kinds, values }: Shape): boolean {
  return kinds.size === 7 && values === undefined
}
