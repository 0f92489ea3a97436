import { parseRfc3339 } from '../../foundation/rfc3339.ts'

const unitSeconds: Readonly<Record<string, number>> = {
  ms: 0.001,
  s: 1,
  m: 60,
  h: 3600,
  d: 86_400,
  w: 604_800,
}

/** `90s`, `15m`, `2h`, `7d`, `1h30m` in seconds; undefined for any other text. */
export function parseDuration(text: string): number | undefined {
  if (!/^(?:\d{1,9}(?:\.\d{1,3})?(?:ms|[smhdw]))+$/.test(text)) return undefined
  return [...text.matchAll(/([\d.]+)(ms|[smhdw])/g)].reduce(
    (sum, [, number = '', unit = '']) => sum + Number(number) * (unitSeconds[unit] ?? Number.NaN),
    0,
  )
}

/**
 * `now`, `2h` (two hours ago), `2026-11-01`, `2026-11-01T03:12` or a time of ISO 8601; in UTC unless it says otherwise. Undefined for any
 * other text.
 *
 * @param now - milliseconds since 1970
 */
export function parseTime(text: string, now: number): Date | undefined {
  if (text === 'now') return new Date(now)
  const ago = parseDuration(text)
  if (ago !== undefined) return validTime(now - ago * 1000)
  const found = /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d(?:\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?$/i.exec(text)
  if (found === null) return undefined
  const [, day, minute = '00:00', second = ':00', zone = 'Z'] = found
  const offset = /^[+-]\d{4}$/.test(zone) ? `${zone.slice(0, 3)}:${zone.slice(3)}` : zone
  return parseRfc3339(`${day}T${minute}${second}${offset}`)
}

/** Undefined outside of the times that a Date may have. */
export function validTime(ms: number): Date | undefined {
  const time = new Date(ms)
  return Number.isNaN(time.getTime()) ? undefined : time
}
