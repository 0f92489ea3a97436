import { expect, test } from 'vitest'
import { isFullForm } from '../support/form.ts'
import { until } from '../support/database.ts'
import { recordFigure } from '../support/figures.ts'
import { startOwnServer } from '../support/own-server.ts'
import { startProgram } from '../support/processes.ts'
import { randomOfTest } from '../support/random.ts'
import { startRedeliveringBroker } from '../support/redelivering-broker.ts'

const pause = async (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** Kills the consumer so often, and the database so often, while messages are received. */
async function receiveThroughCrashes(
  count: number,
  consumerKills: number,
  serverKills: number,
): Promise<void> {
  const server = await startOwnServer()
  const broker = await startRedeliveringBroker(count)
  const random = randomOfTest()
  let consumer = await startProgram('receiving-process.ts', server.url, broker.url)
  for (let n = 0; n < consumerKills + serverKills && broker.waitingCount() > 0; n += 1) {
    // Somewhere in the middle of what it does.
    await pause(50 + random() * 400)
    if (n % Math.ceil((consumerKills + serverKills) / serverKills) === 0) {
      await server.kill()
      await server.restart()
    } else {
      consumer.child.kill('SIGKILL')
      await consumer.exited
      consumer = await startProgram('receiving-process.ts', server.url, broker.url)
    }
  }
  await until('every message is acknowledged', () => broker.waitingCount() === 0, 300_000)
  const poisonCount = Math.ceil(count / 7)
  const events = await server.rows(
    `select count(*)::int as events, count(distinct payload)::int as payloads, count(distinct idempotency_key)::int as keys from bus.events where type = 'note'`,
  )
  expect(events).toEqual([
    { events: count - poisonCount, payloads: count - poisonCount, keys: count - poisonCount },
  ])
  expect(await server.rows('select count(*)::int as messages from bus.quarantined_messages')).toEqual([
    { messages: poisonCount },
  ])
  const redelivered = broker.redelivered()
  // Otherwise nothing was proved.
  expect(redelivered.messages).toBeGreaterThan(0)
  recordFigure(`${count} messages received through crashes: delivered again`, String(redelivered.deliveries))
}

test('each message is one event, or once in the quarantine, although its consumer and the database are killed', async () => {
  await expect(receiveThroughCrashes(2000, 3, 1)).resolves.toBeUndefined()
})

test.runIf(isFullForm)(
  '20,000 messages are 20,000 events and rows of the quarantine through 30 kills',
  { timeout: 900_000 },
  async () => {
    await expect(receiveThroughCrashes(20_000, 24, 6)).resolves.toBeUndefined()
  },
)
