import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Bus } from '../../bus-interface.ts'
import type { EventCatalogue } from '../../events/catalogue.ts'
import type { NewEvent, Published } from '../../events/envelope.ts'
import { required } from '../command/arguments.ts'
import { defineCommand, type CommandContext, type ExitCode } from '../command/command.ts'
import { durationSeconds, text, texts, toggle } from '../command/flags.ts'
import { changeFlags } from '../command/shared-flags.ts'
import { silentLogger } from '../../foundation/logger.ts'
import { UsageError } from '../command/usage-error.ts'
import { writeOutcome } from '../follow/live-lines.ts'
import { duration } from '../output/cells.ts'

const args = { type: required('The type of the event, as the catalogue names it') } as const

const flags = {
  tenant: text('<id>', 'The tenant that owns it. Always needed'),
  payload: text('<json|@file|->', 'The payload as JSON, a file with it, or - for standard input ({})'),
  subject: text('<subject>', 'What it is about'),
  'event-id': text('<id>', 'The business id: another event of the tenant with the same one is a duplicate'),
  'idempotency-key': text('<key>', 'Another publish of the tenant with the same one is a duplicate'),
  'ordering-key': text('<key>', 'Ordered subscriptions handle events with the same one in order'),
  correlation: text('<id>', 'The business process that it belongs to'),
  metadata: texts('<name=value>', 'Travels beside the payload'),
  in: durationSeconds('Is delivered so much later'),
  unchecked: toggle('Publishes it without a catalogue: nothing checks the payload'),
  wait: toggle('Shows what becomes of it, until nothing more will'),
  'wait-time': durationSeconds('How long --wait waits', { min: 0, max: 7 * 86_400, default: 60 }),
  ...changeFlags,
  'dry-run': toggle('Only checks it: nothing is stored'),
} as const

type Context = CommandContext<typeof flags, typeof args>

export const eventsPublish = defineCommand({
  examples: [
    [`events publish order.placed --tenant acme --payload '{"orderId":"42"}' --wait`, 'and see it delivered'],
    ['events publish order.placed --tenant acme --payload @order.json', 'from a file'],
    ['events publish order.placed --tenant acme --payload - < order.json', 'from standard input'],
  ],
  notes: [
    'The type and the payload are checked by the catalogue of the configuration, and the event has its source. Prints the id.',
    'The audit records who published it. The role of the connection needs the rights of bus_publisher and bus_operator, or those of bus_worker.',
    'With --wait, exit code 1 means that it is dead, expired or not done in time.',
  ],
  args,
  flags,
  isLong: true,
  async run(context) {
    const { output, inTime, flags: given } = context
    if (given.tenant === undefined) throw new UsageError('An event belongs to a tenant: give --tenant <id>')
    const event = {
      ...{ type: context.args.type, tenantId: given.tenant, payload: await readPayload(context) },
      ...{ subject: given.subject, eventId: given['event-id'], idempotencyKey: given['idempotency-key'] },
      ...{ orderingKey: given['ordering-key'], correlationId: given.correlation },
      metadata: metadataOf(given.metadata),
      availableIn: given.in === undefined ? undefined : { seconds: given.in },
    } as NewEvent<EventCatalogue>
    const bus = await inTime(context.bus())
    const { id, duplicate } = await inTime(publishOne(context, bus, event))
    if (given['dry-run']) {
      output.object({ valid: true, duplicate }, () =>
        output.line(`It ${duplicate ? 'would be a duplicate' : 'could be published'}. Nothing was stored.`),
      )
      return 0
    }
    output.object({ id, duplicate }, () => output.line(id))
    if (duplicate) output.note('It is a duplicate: this is the id of the event that is stored already.')
    return given.wait ? follow(context, bus, id) : 0
  },
})

async function publishOne(context: Context, bus: Bus, event: NewEvent<EventCatalogue>): Promise<Published> {
  if (!context.flags.unchecked) {
    await requireCatalogue(context)
    return publishWith(context, bus, event)
  }
  const unchecked = await createUncheckedBus(context, event.type)
  try {
    return await publishWith(context, unchecked, event)
  } finally {
    await unchecked.stop({ graceMs: 0 })
  }
}

/** Publishes with a record of who did; a dry run publishes in a transaction and rolls it back. */
async function publishWith(context: Context, bus: Bus, event: NewEvent<EventCatalogue>): Promise<Published> {
  if (!context.flags['dry-run']) return bus.publishByHand(event, context.actor())
  const [{ fromPg }, database] = await Promise.all([
    import('../../outbox/transactions/adapters/from-pg.ts'),
    context.database(),
  ])
  let dry: Published | undefined
  try {
    return await database.transaction(async (client) => {
      dry = await bus.publish(fromPg(client), event)
      throw new Error('a dry run')
    })
  } catch (error) {
    if (dry !== undefined) return dry
    throw error
  }
}

async function requireCatalogue({ config }: Context): Promise<void> {
  const given = await config()
  try {
    // Without them the bus of the command line knows no type, and has a name of its own.
    await given.events()
    given.source()
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    throw new UsageError(`${error.message}. Or publish what nothing checks, with --unchecked`, {
      cause: error,
    })
  }
}

/** A bus that knows this type alone, and takes any payload. */
async function createUncheckedBus({ config }: Context, type: string): Promise<Bus> {
  const [given, { createBus }] = await Promise.all([config(), import('../../bus.ts')])
  const anything = {
    '~standard': { version: 1, vendor: 'bossbus', validate: (value: unknown) => ({ value }) },
  } as const
  const { source, database, bossSchema } = given.busOptions()
  const events: EventCatalogue = { [type]: { schema: anything } }
  return createBus({ source, database, bossSchema, events, logger: silentLogger })
}

async function readPayload({ flags: { payload = '{}' }, cwd, input }: Context): Promise<unknown> {
  let json = payload
  if (payload === '-') json = await input()
  else if (payload.startsWith('@')) {
    const file = resolve(cwd, payload.slice(1))
    json = await readFile(file, 'utf8').catch((error: unknown) => {
      throw new UsageError(`${file} could not be read: ${(error as Error).message}`, { cause: error })
    })
  }
  try {
    return JSON.parse(json) as unknown
  } catch (error) {
    throw new UsageError(`Expected --payload to be JSON: ${(error as Error).message}`, { cause: error })
  }
}

function metadataOf(given: readonly string[]): Readonly<Record<string, string>> | undefined {
  if (given.length === 0) return undefined
  return Object.fromEntries(
    given.map((each) => {
      const at = each.indexOf('=')
      if (at < 1) throw new UsageError(`Expected --metadata to be <name=value>, got ${each.slice(0, 80)}`)
      return [each.slice(0, at), each.slice(at + 1)] as const
    }),
  )
}

const lookMs = 100

async function follow(context: Context, bus: Bus, id: string): Promise<ExitCode> {
  const { output, inTime, interruption, flags: given } = context
  const { createDeliveryFollower } = await import('../follow/follow-deliveries.ts')
  const follower = createDeliveryFollower(bus)
  const signal = interruption()
  const deadline = performance.now() + given['wait-time'] * 1000
  let hasFailed = false
  follower.add(id)
  while (!signal.aborted && performance.now() < deadline) {
    await inTime(follower.look())
    for (const outcome of follower.take()) {
      writeOutcome(output, outcome)
      hasFailed ||= outcome.delivery?.state === 'dead' || outcome.delivery?.state === 'expired'
    }
    if (follower.waitingCount() === 0) return hasFailed ? 1 : 0
    await sleep(lookMs, undefined, { signal }).catch(() => {})
  }
  const { sentence } = await inTime(bus.explain(id))
  output.note(
    `It is not done${signal.aborted ? '' : ` after ${duration(given['wait-time'] * 1000)}`}: ${sentence}`,
  )
  return 1
}
