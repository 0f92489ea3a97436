import type { Database } from '../../database/database.ts'
import { found } from '../check/finding.ts'
import type { Check } from '../check/check.ts'

const rounds = 10

/** A publish takes one or two round trips, a claim and a settlement a few. */
const slowMs = 20

/** How long a statement takes that does nothing, in milliseconds: the shortest of some, because the others had to wait for a busy machine. */
export async function measureRoundTrip({ query }: Pick<Database, 'query'>): Promise<number> {
  let shortest = Number.POSITIVE_INFINITY
  for (let round = 0; round < rounds; round += 1) {
    const startedAt = performance.now()
    await query('select 1')
    shortest = Math.min(shortest, performance.now() - startedAt)
  }
  return Math.round(shortest * 10) / 10
}

export const roundTripCheck: Check = {
  name: 'round trip to the server',
  needs: 'server',
  async run({ facts: { roundTripMs } }) {
    if (roundTripMs <= slowMs) return []
    return [
      found(
        'round-trip-slow',
        `A statement takes ${roundTripMs} ms to the server and back: each publish holds its transaction for one or two of these, and each delivery takes several`,
        'Run the processes in the region, and the network, of the database.',
        { roundTripMs, limitMs: slowMs },
      ),
    ]
  },
}
