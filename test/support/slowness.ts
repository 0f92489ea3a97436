import { createHash } from 'node:crypto'

/** What the work takes on a machine with nothing else to do, in milliseconds: a quarter more than was measured on a small one. */
const usualMs = 10

const text = 'x'.repeat(1_000_000)

/**
 * The time to allow for what takes this long on a machine with nothing else to do: more where a fixed piece of work takes longer
 * now, because the machine is slow or busy. A bound that was good for one machine says nothing on another.
 */
export function roomFor(ms: number): number {
  const beganAt = performance.now()
  for (let n = 0; n < 12; n += 1) createHash('sha256').update(text).digest()
  const slowness = (performance.now() - beganAt) / usualMs
  return ms * Math.min(20, Math.max(1, slowness))
}
