/** A process with a started bus, whose subscriptions handle events by counting them. */
import { createBus, type Bus } from '../../../src/index.ts'
import { benchEvents } from '../catalogue.ts'
import { serve } from '../child.ts'
import { createHandledLog, type HandledLog } from '../handled.ts'

interface StartTask {
  readonly url: string
  readonly subscriptionCount: number
  /** Whether to record the time of each event, for latencies. */
  readonly keepTimes?: boolean
}

let bus: Bus<typeof benchEvents> | undefined
let log: HandledLog = createHandledLog(false)

serve({
  async start({ url, subscriptionCount, keepTimes = false }: StartTask) {
    log = createHandledLog(keepTimes)
    bus = createBus({ database: url, events: benchEvents, source: 'bench' })
    for (let i = 0; i < subscriptionCount; i += 1) {
      bus.subscribe({
        name: `subscriber-${i}`,
        events: ['order.placed'],
        handler: ({ payload }) => log.add(payload.number, i),
      })
    }
    await bus.start()
  },
  handledCount: () => log.methods.handledCount(),
  waitHandled: async (task: { count: number }) => log.methods.waitHandled(task),
  takeHandled: () => log.methods.takeHandled(),
  cpuMs: () => (process.cpuUsage().user + process.cpuUsage().system) / 1000,
  stop: async () => bus?.stop(),
})
