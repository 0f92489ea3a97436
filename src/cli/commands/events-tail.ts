import { setTimeout as sleep } from 'node:timers/promises'
import { defineCommand, type CommandContext } from '../command/command.ts'
import { eventTypes, integer, text, time, toggle } from '../command/flags.ts'
import { UsageError } from '../command/usage-error.ts'
import { writeEvent, writeForward, writeOutcome } from '../follow/live-lines.ts'

/** How often the deliveries of events are looked up. */
const deliveriesMs = 250

/** So many events may wait to be forwarded: then the log is read no further. */
const maxForwarding = 100

const flags = {
  type: eventTypes('Of this type, or matching a pattern like payment.*'),
  tenant: text('<id>', 'Of this tenant'),
  from: time('Begins with those that were published since then'),
  deliveries: toggle('Also what becomes of each event'),
  'forward-to': text('<url>', 'Posts each event there, as a CloudEvent'),
  limit: integer('<n>', 'Ends after so many events', { min: 1, max: 1_000_000_000 }),
} as const

export const eventsTail = defineCommand({
  examples: [
    ['events tail --deliveries', 'what happens, as it happens'],
    [
      "events tail --type 'payment.*' --forward-to http://localhost:3000/hook",
      'to a service on this machine',
    ],
    ['events tail --json | jq .type', 'with all fields, a line an event'],
  ],
  notes: [
    'Shows each event once, when its transaction commits, also if that is up to an hour after it was published. Ctrl-C ends it.',
    'Payloads are redacted as the catalogue says, also those that are forwarded. The receiver gets one event after the other, each up to five\ntimes if it does not answer, or answers with 408, 429 or 5xx.',
  ],
  flags,
  isLong: true,
  async run(context) {
    const { output, inTime, interruption } = context
    const target =
      context.flags['forward-to'] === undefined ? undefined : httpUrl(context.flags['forward-to'])
    const bus = await inTime(context.bus())
    const ended = new AbortController()
    const signal = AbortSignal.any([interruption(), ended.signal])
    const [{ followLog }, { openWakeUps }] = await Promise.all([
      import('../follow/follow-log.ts'),
      import('../follow/wake-ups.ts'),
    ])
    const database = await context.database()
    const { type, tenant, from, limit } = context.flags
    const wakeUps = openWakeUps(database)
    const forwarding = await startForwarding(context, target, signal)
    const deliveries = context.flags.deliveries ? await startDeliveries(context, signal) : undefined
    let count = 0
    try {
      const events = followLog({
        ...{ bus, database, wakeUps, signal, inTime, from, note: output.note },
        filter: {
          types: listOf(type.filter((each) => !each.includes('*'))),
          patterns: listOf(type.filter((each) => each.includes('*'))),
          tenantId: tenant,
        },
      })
      for await (const event of events) {
        writeEvent(output, event)
        deliveries?.add(event.id)
        await forwarding?.add(event)
        count += 1
        if (count === limit) break
      }
      // After the last event, what is under way; after Ctrl-C nothing.
      await forwarding?.finish()
      await deliveries?.finish()
    } finally {
      ended.abort()
      await wakeUps.close()
    }
    return forwarding?.hasFailed() === true ? 1 : 0
  },
})

type Context = CommandContext<typeof flags>

async function startForwarding(
  { output }: Context,
  url: URL | undefined,
  signal: AbortSignal,
): Promise<
  | {
      readonly add: (event: Parameters<typeof writeEvent>[1]) => Promise<void>
      readonly finish: () => Promise<void>
      readonly hasFailed: () => boolean
    }
  | undefined
> {
  if (url === undefined) return undefined
  const { forwardEvent } = await import('../follow/forward.ts')
  let last = Promise.resolve()
  let waiting = 0
  let hasFailed = false
  return {
    async add(event) {
      waiting += 1
      last = last.then(async () => {
        const isReceived = await forwardEvent(event, url, signal, (attempt) => writeForward(output, attempt))
        waiting -= 1
        if (!isReceived && !signal.aborted) hasFailed = true
      })
      if (waiting >= maxForwarding) await last
    },
    finish: async () => last,
    hasFailed: () => hasFailed,
  }
}

async function startDeliveries(
  { bus, output, inTime }: Context,
  signal: AbortSignal,
): Promise<{ readonly add: (id: string) => void; readonly finish: () => Promise<void> }> {
  const { createDeliveryFollower } = await import('../follow/follow-deliveries.ts')
  const follower = createDeliveryFollower(await bus())
  let isEnding = false
  let isTold = false
  const following = (async () => {
    while (!signal.aborted && !(isEnding && follower.waitingCount() === 0)) {
      // The log is read by the same database, and says that it does not answer.
      await inTime(follower.look()).catch(() => {})
      if (!signal.aborted) for (const outcome of follower.take()) writeOutcome(output, outcome)
      if (follower.isBounded() && !isTold) {
        isTold = true
        output.note('There are more events than can be followed: of some, the deliveries are not shown.')
      }
      await sleep(deliveriesMs, undefined, { signal }).catch(() => {})
    }
  })()
  return {
    add: follower.add,
    async finish() {
      isEnding = true
      await following
    },
  }
}

function httpUrl(given: string): URL {
  const url = URL.canParse(given) ? new URL(given) : undefined
  if (url !== undefined && `${url.username}${url.password}` !== '')
    throw new UsageError('Expected --forward-to without a user and a password: requests cannot carry them')
  if (url?.protocol === 'http:' || url?.protocol === 'https:') return url
  throw new UsageError(
    `Expected --forward-to to be a URL like http://localhost:3000/hook, got ${given.slice(0, 80)}`,
  )
}

function listOf(given: readonly string[]): readonly string[] | undefined {
  return given.length === 0 ? undefined : given
}
