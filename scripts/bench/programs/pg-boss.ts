/** A process with pg-boss workers that handle jobs by counting them. */
import { PgBoss } from 'pg-boss'
import { serve } from '../child.ts'
import { createHandledLog, type HandledLog } from '../handled.ts'

interface StartTask {
  readonly url: string
  readonly subscriptionCount: number
  readonly keepTimes?: boolean
}

let boss: PgBoss | undefined
let log: HandledLog = createHandledLog(false)

serve({
  async start({ url, subscriptionCount, keepTimes = false }: StartTask) {
    log = createHandledLog(keepTimes)
    boss = new PgBoss({ connectionString: url, useListenNotify: true, schedule: false, max: 10 })
    boss.on('error', (error) => console.error(error.message))
    await boss.start()
    for (let i = 0; i < subscriptionCount; i += 1) {
      await boss.createQueue(`subscriber-${i}`, { partition: true, notify: true })
      await boss.work<{ number: number }>(
        `subscriber-${i}`,
        { batchSize: 100, burstWhenBatchFull: true },
        async (jobs) => {
          for (const { data } of jobs) log.add(data.number, i)
        },
      )
    }
  },
  handledCount: () => log.methods.handledCount(),
  waitHandled: async (task: { count: number }) => log.methods.waitHandled(task),
  takeHandled: () => log.methods.takeHandled(),
  cpuMs: () => (process.cpuUsage().user + process.cpuUsage().system) / 1000,
  stop: async () => boss?.stop({ graceful: false }),
})
