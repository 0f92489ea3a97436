/**
 * A process to be killed. It imports a module that exports `events` and `subscription`, runs that subscription on the
 * given database, and kills itself with SIGKILL at the given step. crash-child.ts starts it, and sends orders as
 * messages.
 */
import { createBus, type Bus } from '../bus.ts'
import type { AnySubscriptionOptions } from '../delivery/subscriptions/subscription-options.ts'
import { defineEvents, type EventCatalogue } from '../events/catalogue.ts'
import { withFaultHook, type FaultPoint } from '../foundation/fault-points.ts'
import type { DrizzleOption } from '../database/drizzle-handle.ts'
import { silentLogger, StepCounter, type CrashStep } from './crash-instance.ts'

/** An order to the process. */
export type CrashOrder =
  | { readonly order: 'start'; readonly url: string; readonly source: string; readonly module: string }
  | { readonly order: 'arm'; readonly step?: CrashStep | undefined }
  | { readonly order: 'trail' }
  | { readonly order: 'end' }

/** Its answer to an order. */
export type CrashAnswer = { readonly trail: readonly CrashStep[] } | { readonly error: string }

type CrashSubscription = AnySubscriptionOptions

/** The exports of the module. */
interface CrashModule {
  readonly events?: EventCatalogue
  readonly drizzle?: DrizzleOption
  readonly subscription?:
    | CrashSubscription
    | ((database: { readonly url: string }) => CrashSubscription | Promise<CrashSubscription>)
}

const counter = new StepCounter()
let bus: Bus | undefined

function onFaultPoint(point: FaultPoint): void {
  if (counter.pass(point)) process.kill(process.pid, 'SIGKILL')
}

async function obey(order: CrashOrder): Promise<void> {
  if (order.order === 'start') await start(order.url, order.source, order.module)
  else if (order.order === 'arm') counter.arm(order.step)
  else if (order.order === 'end') await bus?.stop({ graceMs: 1000 })
}

async function start(url: string, source: string, module: string): Promise<void> {
  const { events, subscription, drizzle } = (await import(module)) as CrashModule
  if (events === undefined || subscription === undefined)
    throw new Error(`Expected ${module} to export \`events\` and \`subscription\``)
  const options = typeof subscription === 'function' ? await subscription({ url }) : subscription
  bus = withFaultHook(onFaultPoint, () =>
    createBus<EventCatalogue>({
      ...{ database: url, events: defineEvents(events), source, drizzle, logger: silentLogger },
    }),
  )
  bus.subscribe(options as never)
  await bus.start()
}

process.on('message', (order: CrashOrder) => {
  void obey(order)
    .then(
      (): CrashAnswer => ({ trail: counter.trail }),
      (error: unknown): CrashAnswer => ({
        error: error instanceof Error ? (error.stack ?? error.message) : String(error),
      }),
    )
    .then((answer) => process.send?.(answer, () => order.order === 'end' && process.exit(0)))
})
// The parent process has ended.
process.on('disconnect', () => process.exit(1))
