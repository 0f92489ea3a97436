import { parseTime } from '../command/times.ts'
import { UsageError } from '../command/usage-error.ts'

type Given = Readonly<Record<string, unknown>>

/** An argument that the schema of the tool has checked. */
export function textOf(given: Given, name: string): string | undefined {
  const value = given[name]
  return typeof value === 'string' ? value : undefined
}

export function numberOf(given: Given, name: string): number | undefined {
  const value = given[name]
  return typeof value === 'number' ? value : undefined
}

export function textsOf(given: Given, name: string): readonly string[] | undefined {
  const value = given[name]
  return Array.isArray(value) ? (value as readonly string[]) : undefined
}

export function objectOf(given: Given, name: string): Readonly<Record<string, unknown>> | undefined {
  const value = given[name]
  return value !== null && typeof value === 'object'
    ? (value as Readonly<Record<string, unknown>>)
    : undefined
}

export function booleanOf(given: Given, name: string): boolean | undefined {
  const value = given[name]
  return typeof value === 'boolean' ? value : undefined
}

/** @throws a {@link UsageError} */
export function timeOf(given: Given, name: string): Date | undefined {
  const text = textOf(given, name)
  if (text === undefined) return undefined
  const time = parseTime(text, Date.now())
  if (time === undefined)
    throw new UsageError(`Expected \`${name}\` to be a time like 2026-11-01T03:12Z, or 2h for two hours ago`)
  return time
}
