/**
 * The advisory locks of the bus: two-integer keys, so they cannot collide with a user's one-integer keys.
 * The SQL of the migrations has the same numbers.
 */
export const locks = {
  namespace: 1_651_864_320,
  /** Held shared by publishers until they end, exclusively by the relay that sleeps. */
  awake: 1,
  /** Held by the one relay that holds the bell. */
  leader: 2,
  /** Held while migrating. */
  migrate: 3,
  /** Held while subscriptions are registered and their queues created. */
  registry: 4,
  /** Held by bus.create_partitions(), in SQL. */
  partitions: 5,
  /** Held by the one relay that hands events with an ordering key over, until its transaction has ended. */
  order: 6,
  /** Held by bus.repair_sequences(), in SQL. */
  sequences: 7,
} as const
