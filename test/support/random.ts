/** What a run draws its chances from: BOSSBUS_SEED=… repeats them, as far as processes that run beside each other allow. */
export const seed = Number(process.env['BOSSBUS_SEED'] ?? Date.now() % 2 ** 31)

/** Numbers from 0 up to 1 that follow from the seed: mulberry32. */
export function randomNumbers(from = seed): () => number {
  let state = from
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let bits = Math.imul(state ^ (state >>> 15), 1 | state)
    bits = (bits + Math.imul(bits ^ (bits >>> 7), 61 | bits)) ^ bits
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32
  }
}

/** The same for a test, which says what it draws from. */
export function randomOfTest(): () => number {
  console.log(`BOSSBUS_SEED=${seed}`)
  return randomNumbers()
}
