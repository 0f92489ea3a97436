const shape = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:Z|([+-])(\d\d):(\d\d))$/i

const minuteMs = 60_000

/**
 * Parses an RFC 3339 time to the millisecond; finer digits are cut off. Undefined for any other text, including a day
 * that the month does not have, hour 24, or an offset of 24 hours. A leap second, 23:59:60 UTC at the end of a month,
 * is parsed as the following second, because POSIX and JavaScript cannot represent it.
 */
export function parseRfc3339(text: string): Date | undefined {
  const found = shape.exec(text)
  if (found === null) return undefined
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = found.slice(1, 7).map(Number)
  const [fraction = '', sign, offsetHour = '0', offsetMinute = '0'] = found.slice(7)
  const time = new Date(0)
  time.setUTCFullYear(year, month - 1, day)
  // A time that does not exist has rolled over.
  if (time.getUTCMonth() !== month - 1 || time.getUTCDate() !== day) return undefined
  if (hour > 23 || minute > 59 || second > 60) return undefined
  if (Number(offsetHour) > 23 || Number(offsetMinute) > 59) return undefined
  const offset = (Number(offsetHour) * 60 + Number(offsetMinute)) * (sign === '-' ? -1 : 1)
  time.setUTCHours(hour, minute, 0, 0)
  const wholeMinute = time.getTime() - offset * minuteMs
  if (second === 60 && !endsMonth(new Date(wholeMinute + minuteMs))) return undefined
  return new Date(wholeMinute + second * 1000 + Number(fraction.slice(0, 3).padEnd(3, '0')))
}

/** Whether a moment is the first of a month: leap seconds are inserted just before. */
function endsMonth(next: Date): boolean {
  return next.getUTCDate() === 1 && next.getUTCHours() === 0 && next.getUTCMinutes() === 0
}

/** A time in RFC 3339; undefined if it cannot be expressed: an invalid Date, or a year outside 0 to 9999. */
export function toRfc3339(time: Date): string | undefined {
  const year = time.getUTCFullYear()
  return year >= 0 && year <= 9999 ? time.toISOString() : undefined
}
