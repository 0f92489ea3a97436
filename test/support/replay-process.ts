/**
 * A process that takes part in replays and in catching up, and may be killed: `node replay-process.ts URL FOLDER now|beginning [POINT NTH]`. It waits for a line
 * on standard input and starts its bus; with a POINT it is killed there, the NTH time. Handlers leave what they do in tables, in the
 * transaction of their receipt where they have one.
 */
import { once } from 'node:events'
import { openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { sql } from 'drizzle-orm'
import { withFaultHook, type FaultPoint } from '../../src/foundation/fault-points.ts'
import { createBus } from '../../src/index.ts'
import { paymentEvents } from './catalogue.ts'

const [, , url = '', folder = '', start, point, nth = '1'] = process.argv
let count = 0

function onFaultPoint(reached: FaultPoint): void {
  if (reached !== point) return
  count += 1
  if (count !== Number(nth)) return
  writeSync(openSync(join(folder, 'killed'), 'a'), `${reached}\n`)
  process.kill(process.pid, 'SIGKILL')
}

const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }
const bus = withFaultHook(onFaultPoint, () =>
  createBus({ database: url, events: paymentEvents, source: 'payment-service', logger: silent }),
)
const retry = { maxAttempts: 30, delaySeconds: 0, backoff: false }
const common = { events: ['note'], retry, batchSize: 20 } as const
const startFrom = start === 'beginning' ? start : undefined

bus.subscribe({ ...common, name: 'plain', startFrom, handler: () => {} })
bus.subscribe({
  ...common,
  ...{ name: 'once', mode: 'exactly-once', startFrom },
  handler: async ({ id }, { tx, replayId = 'live', attempt }) => {
    await tx.execute(sql`insert into did values ('once', ${replayId}, ${id}, null)`)
    if (attempt === 1 && id.endsWith('7')) throw new Error('some fail once')
  },
})
bus.subscribe({
  ...common,
  ...{ name: 'turns', mode: 'exactly-once', ordered: true, startFrom },
  handler: async ({ id, orderingKey }, { tx, replayId = 'live', attempt }) => {
    await tx.execute(sql`insert into did values ('turns', ${replayId}, ${id}, ${orderingKey})`)
    if (attempt === 1 && id.endsWith('7')) throw new Error('some fail once')
  },
})
console.log('loaded')
await once(process.stdin, 'data')
await bus.start()
process.on('SIGTERM', () => {
  void bus.stop().then(() => process.exit(0))
})
console.log('started')
