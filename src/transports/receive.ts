import { assertSubscriptionName } from '../delivery/subscriptions/subscription-name.ts'
import type { EventCatalogue } from '../events/catalogue.ts'
import type { NewEvent } from '../events/envelope.ts'
import { limits } from '../foundation/limits.ts'
import {
  assertObject,
  describe,
  invalidOption,
  refuseUnknownKeys,
  textOption,
} from '../foundation/options.ts'
import type { MapMessage } from './receiving/prepare-message.ts'
import type { ReceivedMessage, Source } from './receiving/source.ts'

/** What `map` of a receiver may return. */
export type MappedEvents<C extends EventCatalogue> =
  NewEvent<C, 'tenantId'> | readonly NewEvent<C, 'tenantId'>[] | undefined

/** Options of `bus.receive`. */
export interface ReceiveOptions<C extends EventCatalogue = EventCatalogue> {
  /**
   * What it is known by: a receiver of this name stores each message of its source once, in whichever process it runs. 1 to 100 letters,
   * digits, `.`, `_` or `-`. With another name, or another source, messages are new.
   */
  readonly name: string
  /** Where the messages come from. */
  readonly from: Source
  /**
   * The event that a message becomes, or several; `undefined` skips it. It is called again when a message comes again, so it depends on the
   * message alone. What it throws puts the message into the quarantine, unless it may work later: a {@link RetryAfterError} or another error
   * of the bus whose `retryable` is true, or a lost connection of a database.
   * @defaultValue reads CloudEvents, structured or binary
   */
  readonly map?: ((message: ReceivedMessage) => MappedEvents<C> | Promise<MappedEvents<C>>) | undefined
  /**
   * The tenant of the events: of CloudEvents whatever the sender wrote, of what `map` returns where that names none. Without it a sender of
   * CloudEvents may publish for every tenant.
   */
  readonly tenantId?: string | undefined
}

/** Checked options. */
export interface ResolvedReceiver {
  readonly name: string
  readonly source: Source
  readonly map: MapMessage | undefined
  readonly tenantId: string | undefined
}

/** @throws a `ConfigurationError` `BUS_INVALID_OPTION` */
export function resolveReceiver(given: object): ResolvedReceiver {
  assertObject('options like { name, from }', given)
  refuseUnknownKeys(given, ['name', 'from', 'map', 'tenantId'], 'receive')
  const { name, from, map, tenantId } = given as Readonly<Record<keyof ReceiveOptions, unknown>>
  assertSubscriptionName(name)
  assertSource(from)
  if (map !== undefined && typeof map !== 'function')
    throw invalidOption(`Expected \`map\` of \`${name}\` to be a function, got ${describe(map)}`, 'map')
  return Object.freeze({
    name,
    source: from,
    map: map as MapMessage | undefined,
    tenantId:
      tenantId === undefined ? undefined : textOption('tenantId', tenantId, { max: limits.keyLength }),
  })
}

function assertSource(given: unknown): asserts given is Source {
  const source = given as Partial<Source> | null | undefined
  const isSource =
    typeof source === 'object' &&
    source !== null &&
    typeof source.name === 'string' &&
    (['start', 'stop', 'check'] as const).every((method) => typeof source[method] === 'function')
  if (!isSource) throw invalidOption(`Expected \`from\` to be a source, got ${describe(given)}`, 'from')
}
