/** A decimal fraction, exactly: `digits` × 10^`exponent`. */
interface Decimal {
  readonly digits: bigint
  readonly exponent: number
}

/** Whether a number is a whole multiple of another, judged by their decimal notation: 0.3 is a multiple of 0.1. */
export function isMultiple(value: number, of: number): boolean {
  if (of === 0) return false
  const [a, b] = aligned(toDecimal(value), toDecimal(of))
  return a % b === 0n
}

/** The least number above zero that is a multiple of both. Undefined if no number represents it exactly. */
export function commonMultiple(one: number, two: number): number | undefined {
  const [first, second] = [toDecimal(one), toDecimal(two)]
  const [a, b] = aligned(first, second)
  const exponent = Math.min(first.exponent, second.exponent)
  const multiple = Number(`${(a * b) / greatestDivisor(a, b)}e${exponent}`)
  return Number.isFinite(multiple) && isMultiple(multiple, one) && isMultiple(multiple, two)
    ? multiple
    : undefined
}

/** The least multiple that is not less than a number. */
export function nextMultiple(value: number, of: number): number {
  const [first, second] = [toDecimal(value), toDecimal(of)]
  const [a, b] = aligned(first, second)
  const factor = a / b + (a % b > 0n ? 1n : 0n)
  return Number(`${factor * b}e${Math.min(first.exponent, second.exponent)}`)
}

function toDecimal(value: number): Decimal {
  const [mantissa = '0', exponent = '0'] = value.toExponential().split('e')
  const [whole = '0', fraction = ''] = mantissa.split('.')
  return { digits: BigInt(whole + fraction), exponent: Number(exponent) - fraction.length }
}

function aligned(a: Decimal, b: Decimal): [bigint, bigint] {
  const least = Math.min(a.exponent, b.exponent)
  return [a.digits * 10n ** BigInt(a.exponent - least), b.digits * 10n ** BigInt(b.exponent - least)]
}

function greatestDivisor(a: bigint, b: bigint): bigint {
  let [x, y] = [a < 0n ? -a : a, b < 0n ? -b : b]
  while (y !== 0n) [x, y] = [y, x % y]
  return x
}
