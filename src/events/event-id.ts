/** When an event was published, in milliseconds since 1970: the first 48 bits of its id, a uuid of version 7. */
export function timeInId(id: string): number {
  return Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16)
}

/** The first 13 characters of the ids of a millisecond. */
export function idPrefix(ms: number): string {
  const hex = ms.toString(16).padStart(12, '0')
  return `${hex.slice(0, 8)}-${hex.slice(8)}`
}

/** The lowest id of a millisecond, like `bus.uuid_v7_floor`. */
export function lowestId(ms: number): string {
  return `${idPrefix(ms)}-0000-0000-000000000000`
}
