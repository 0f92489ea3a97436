import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import {
  CreateQueueCommand,
  GetQueueAttributesCommand,
  SendMessageBatchCommand,
  SQSClient,
} from '@aws-sdk/client-sqs'
import { expect, onTestFinished, test } from 'vitest'
import { sqs } from '../../src/transports/adapters/sqs.ts'
import { isFullForm } from '../support/form.ts'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { clientOptions, takeMessages } from '../support/fauxqs.ts'
import { startOwnServer } from '../support/own-server.ts'
import { startProgram, type ProgramProcess } from '../support/processes.ts'

/** SQS in a process of its own, which keeps what it has on disk. */
interface KillableQueues {
  readonly client: SQSClient
  readonly port: number
  readonly queueUrl: string
  readonly kill: () => Promise<void>
  readonly restart: () => Promise<void>
}

async function startKillable(isFifo: boolean): Promise<KillableQueues> {
  const folder = await mkdtemp(join(tmpdir(), 'bossbus-fauxqs-'))
  onTestFinished(async () => rm(folder, { recursive: true, force: true }))
  let program = await startProgram('fauxqs-process.ts', '0', folder)
  const port = Number(program.output.find((line) => line.startsWith('port '))?.slice(5))
  const client = new SQSClient(clientOptions(port))
  onTestFinished(() => client.destroy())
  const { QueueUrl: queueUrl = '' } = await client.send(
    new CreateQueueCommand({
      QueueName: isFifo ? 'q.fifo' : 'q',
      ...(isFifo ? { Attributes: { FifoQueue: 'true' } } : {}),
    }),
  )
  return {
    client,
    port,
    queueUrl,
    async kill() {
      program.child.kill('SIGKILL')
      await program.exited
    },
    async restart() {
      program = await startProgram('fauxqs-process.ts', String(port), folder)
    },
  }
}

async function depthOf({ client, queueUrl }: KillableQueues): Promise<number> {
  const { Attributes = {} } = await client.send(
    new GetQueueAttributesCommand({ QueueUrl: queueUrl, AttributeNames: ['All'] }),
  )
  return (
    Number(Attributes['ApproximateNumberOfMessages']) +
    Number(Attributes['ApproximateNumberOfMessagesNotVisible'])
  )
}

interface Body {
  readonly id: string
  readonly data: { readonly key: string; readonly n: number }
}

/** The queue is killed in the middle, and comes back after a while. */
async function forwardThroughKill(count: number): Promise<void> {
  const queues = await startKillable(true)
  const { client, queueUrl } = queues
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.forward({ name: 'out', events: ['note'], to: sqs({ client, queueUrl }), retry: { maxDelaySeconds: 5 } })
  await bus.start()
  const sent = Array.from({ length: count }, (_, n) => ({ key: `k${n % 200}`, n }))
  for (let at = 0; at < count; at += 1000)
    await database.db.transaction(async (tx) =>
      bus.publishMany(
        tx,
        sent
          .slice(at, at + 1000)
          .map((payload) => ({ type: 'note', tenantId: 't', orderingKey: payload.key, payload }) as const),
      ),
    )
  await until('a third is there', async () => (await depthOf(queues)) > count / 3, 600_000)
  await queues.kill()
  await pause(3000)
  await queues.restart()
  const receipts = 'select count(*) from bus.deliveries where delivered_at is not null'
  await until('all are delivered', async () => (await database.count(receipts)) === count, 600_000)
  const messages = await takeMessages(client, queueUrl, await depthOf(queues))
  const got = messages.map(({ Body = '', Attributes }) => ({
    ...(JSON.parse(Body) as Body),
    dedupe: Attributes?.MessageDeduplicationId,
  }))
  for (const each of got) expect(each.dedupe).toBe(each.id)
  const seen = new Set<string>()
  const firsts = got.filter(({ id }) => !seen.has(id) && seen.add(id))
  console.log(`${count} events forwarded, ${got.length - firsts.length} of them twice`)
  expect(firsts).toHaveLength(count)
  const byKey = Map.groupBy(firsts, ({ data }) => data.key)
  for (const [key, events] of byKey)
    expect(events.map(({ data }) => data)).toEqual(sent.filter((each) => each.key === key))
}

/** The receiving process is killed again and again, and the database once. */
async function receiveThroughKills(count: number, processKills: number): Promise<void> {
  const queues = await startKillable(false)
  const { client, queueUrl: QueueUrl, port } = queues
  const server = await startOwnServer()
  for (let at = 0; at < count; at += 10)
    await client.send(
      new SendMessageBatchCommand({
        QueueUrl,
        Entries: Array.from({ length: 10 }, (_, n) => ({ Id: String(n), MessageBody: String(at + n) })),
      }),
    )
  const start = async (): Promise<ProgramProcess> =>
    startProgram('sqs-receiving-process.ts', server.url, QueueUrl, String(port))
  const stored = async (): Promise<number> => server.count('select count(*) from bus.events')
  let program = await start()
  const untilMore = async (more: number): Promise<void> => {
    const goal = Math.min(count, (await stored()) + more)
    await until('more are stored', async () => (await stored()) >= goal)
  }
  for (let kills = 0; kills < processKills; kills += 1) {
    await untilMore(count / (processKills * 4))
    program.child.kill('SIGKILL')
    await program.exited
    program = await start()
  }
  await untilMore(count / 10)
  await server.kill()
  await pause(1500)
  await server.restart()
  await until('the queue is empty', async () => (await depthOf(queues)) === 0, 600_000)
  const [row] = await server.rows(
    'select count(*)::int as count, count(distinct payload)::int as different from bus.events',
  )
  expect(row).toEqual({ count, different: count })
  expect(await server.count('select count(*) from bus.quarantined_messages')).toBe(0)
}

test(
  'a queue that is killed in the middle has every event, in the order of its key',
  { tags: ['slow'] },
  async () => {
    expect(await forwardThroughKill(600)).toBeUndefined()
  },
)

test(
  'messages become exactly one event each, though the receiving process and the database are killed',
  { tags: ['slow'] },
  async () => {
    expect(await receiveThroughKills(600, 1)).toBeUndefined()
  },
)

test.runIf(isFullForm)(
  '20,000 events: the queue is killed in the middle',
  { timeout: 1_200_000 },
  async () => {
    expect(await forwardThroughKill(20_000)).toBeUndefined()
  },
)

test.runIf(isFullForm)(
  '20,000 messages: five processes and the database are killed',
  { timeout: 1_200_000 },
  async () => {
    expect(await receiveThroughKills(20_000, 5)).toBeUndefined()
  },
)
