import { firstCharacters, isLonger } from '../../foundation/text.ts'

/** Where an edited value differs from the one before, without the values: these are in the log, where `bus.erase` reaches them. */
export interface Change {
  /**
   * Names and positions, separated by dots: `items.0.amountCents`. It ends where the value is hidden, or the whole value was replaced, and
   * with `…` after 1,000 characters.
   */
  readonly path: string
  readonly what: 'added' | 'removed' | 'changed'
}

/** A value as it is stored, and as it may be shown. */
export interface Shown {
  readonly stored: unknown
  readonly shown: unknown
}

/** Maximum number of changes that are recorded. */
const maxChangeCount = 100

/** Names may be as long as a payload, and each would be repeated for every place inside. */
const maxPathLength = 1000

/** What differs between two JSON values: at most a hundred places. A place inside a hidden value is not named. */
export function changesBetween(before: Shown, after: Shown, root: string): Change[] {
  const changes: Change[] = []
  compare(before, after, root, changes)
  return changes
}

function compare(before: Shown, after: Shown, path: string, changes: Change[]): void {
  if (changes.length >= maxChangeCount) return
  if (before.stored === undefined && after.stored === undefined) return
  if (before.stored === undefined) changes.push({ path, what: 'added' })
  else if (after.stored === undefined) changes.push({ path, what: 'removed' })
  else if (isOpen(before) && isOpen(after) && Array.isArray(before.stored) === Array.isArray(after.stored)) {
    const names = new Set([...Object.keys(before.stored), ...Object.keys(after.stored)])
    for (const name of names) compare(child(before, name), child(after, name), pathOf(path, name), changes)
  } else if (!isSame(before.stored, after.stored)) changes.push({ path, what: 'changed' })
}

function pathOf(parent: string, name: string): string {
  const path = `${parent}.${name}`
  return isLonger(path, maxPathLength) ? `${firstCharacters(path, maxPathLength - 1)}…` : path
}

/** Whether a value has parts, and they may be named. */
function isOpen(value: Shown): value is { readonly stored: object; readonly shown: object } {
  return (
    typeof value.stored === 'object' &&
    value.stored !== null &&
    typeof value.shown === 'object' &&
    value.shown !== null
  )
}

function child({ stored, shown }: { readonly stored: object; readonly shown: object }, name: string): Shown {
  const part = (whole: object): unknown =>
    Object.hasOwn(whole, name) ? (whole as Readonly<Record<string, unknown>>)[name] : undefined
  return { stored: part(stored), shown: part(shown) }
}

/** Objects may name their properties in another order. */
function isSame(a: unknown, b: unknown): boolean {
  if (a === null || b === null || typeof a !== 'object' || typeof b !== 'object') return Object.is(a, b)
  if (Array.isArray(a) !== Array.isArray(b)) return false
  const names = Object.keys(a)
  const parts = [a, b] as readonly Readonly<Record<string, unknown>>[]
  return (
    names.length === Object.keys(b).length &&
    names.every((name) => Object.hasOwn(b, name) && isSame(parts[0]?.[name], parts[1]?.[name]))
  )
}
