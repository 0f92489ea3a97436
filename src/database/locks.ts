/**
 * The advisory locks of the bus. They have two-integer keys, so they cannot collide with a user's one-integer keys. The
 * SQL of the migrations uses the same numbers.
 */
export const locks = {
  namespace: 1_651_864_320,
  /** Held in share mode by publishers until their transactions end, exclusively by a sleeping relay. */
  publishing: 1,
  /** Held by the leader: it acts on a notification at once, the other relays 25 ms later. */
  leader: 2,
  /** Held during a migration. */
  migrate: 3,
  /** Held while subscriptions are registered and their queues are created. */
  registry: 4,
  /** Held by bus.create_partitions(), in SQL. */
  partitions: 5,
  /** Held by the one relay that dispatches events with an ordering key, until its transaction has ended. */
  order: 6,
  /** Held by bus.repair_sequences(), in SQL. */
  sequences: 7,
  /** Held in share mode by every claim, exclusively where a subscription that catches up begins and ends to do so. */
  catchUp: 8,
  /** Held while replays get their ids. */
  replays: 9,
  /** Held while a scheduled canary is published. */
  canary: 10,
  /** Held during a round of retention: see src/retention/round.ts. */
  retention: 12,
} as const
