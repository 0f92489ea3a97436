/** A process that publishes at a steady pace, each event in a transaction of its own, and reports when each one committed. */
import { drizzle } from 'drizzle-orm/postgres-js'
import { PgBoss } from 'pg-boss'
import postgres from 'postgres'
import { createBus } from '../../../src/index.ts'
import { benchEvents } from '../catalogue.ts'
import { serve } from '../child.ts'
import { makePayload, monotonicMs } from '../contestant.ts'

export interface LatencyTask {
  readonly kind: 'bossbus' | 'pg-boss'
  readonly url: string
  readonly subscriberCount: number
  readonly eventCount: number
  readonly everyMs: number
}

/** For each event and each subscriber: when its commit was known, by the clock that all processes share. */
export type CommitTimes = readonly (readonly number[])[]

interface Publisher {
  readonly publish: (number: number) => Promise<number[]>
  readonly close: () => Promise<void>
}

const connectionCount = 8
const payloadBytes = 200

serve({
  async run(task: LatencyTask): Promise<CommitTimes> {
    const { publish, close } =
      task.kind === 'bossbus' ? await publishWithBossbus(task) : await publishWithPgBoss(task)
    const committed: Promise<number[]>[] = []
    const start = performance.now()
    for (let number = 0; number < task.eventCount; number += 1) {
      // Up to a quarter early or late, so that it does not always coincide with a system timer.
      const dueMs = start + (number + (Math.random() - 0.5) / 2) * task.everyMs
      const waitMs = dueMs - performance.now()
      if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs))
      committed.push(publish(number))
    }
    const times = await Promise.all(committed)
    await close()
    return times
  },
})

async function publishWithBossbus({ url, subscriberCount }: LatencyTask): Promise<Publisher> {
  const bus = createBus({ database: url, events: benchEvents, source: 'bench' })
  const client = postgres(url, { max: connectionCount })
  const db = drizzle(client)
  return {
    async publish(number) {
      await db.transaction(async (tx) => {
        await bus.publish(tx, {
          type: 'order.placed',
          tenantId: 'tenant',
          payload: makePayload(number, payloadBytes),
        })
      })
      const now = monotonicMs()
      return Array.from({ length: subscriberCount }, () => now)
    },
    close: async () => client.end(),
  }
}

async function publishWithPgBoss({ url, subscriberCount }: LatencyTask): Promise<Publisher> {
  const boss = new PgBoss({ connectionString: url, schedule: false, supervise: false, max: connectionCount })
  boss.on('error', (error) => console.error(error.message))
  await boss.start()
  return {
    publish: async (number) =>
      Promise.all(
        Array.from({ length: subscriberCount }, async (_, i) => {
          await boss.send(`subscriber-${i}`, makePayload(number, payloadBytes))
          return monotonicMs()
        }),
      ),
    close: async () => boss.stop({ graceful: false }),
  }
}
