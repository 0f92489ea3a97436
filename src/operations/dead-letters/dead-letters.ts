import { checkActor, reasonLength } from '../../audit/audit.ts'
import type { Database } from '../../database/database.ts'
import type { StoredFilter } from '../../delivery/operator/dead-letter-filter.ts'
import { createDeadLetterReads, type DeadLetterReads } from '../../delivery/operator/dead-letters.ts'
import { assertUsableBoss } from '../../delivery/jobs/boss-version.ts'
import { findSubscription } from '../../delivery/registry/find-subscription.ts'
import type { RegisteredSubscription } from '../../delivery/registry/registry.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import { limits } from '../../foundation/limits.ts'
import {
  assertObject,
  assertTextOption,
  booleanOption,
  idOption,
  integerOption,
  textOption,
  refuseUnknownKeys,
} from '../../foundation/options.ts'
import type { PublishSettings } from '../../outbox/publish/check-events.ts'
import type { Recorder } from '../../telemetry/recorder.ts'
import { insertOperation, type Operation, type OperationKind } from '../operation.ts'
import type { Operations } from '../operations.ts'
import { inspectLetter, type DeadLetterDetails } from './inspect.ts'
import { countLetters, previewLetters, type DeadLetterPreview } from './preview.ts'
import {
  checkEdit,
  planEdit,
  readEntry,
  redriveCopy,
  type EditedRedrive,
  type EditedRedriveOptions,
} from './redrive-edited.ts'
import { checkSelection, subscriptionsOf, type DeadLetterSelection } from './selection.ts'

/** Who redrives, why, and how. */
export interface RedriveOptions {
  /** The person or program, 1 to 255 characters. Recorded. */
  readonly by: string
  /** Up to 2,000 characters. Recorded. */
  readonly reason?: string | undefined
  /** Only counts, and changes nothing. @defaultValue `false` */
  readonly dryRun?: boolean | undefined
  /** Events a second, at most. @defaultValue no limit */
  readonly rate?: number | undefined
  /**
   * How many go first, alone, 0 to 100. Unless one of them is delivered, the redrive stops, with the reason; resumed, it tries the next ones
   * first. 0: none.
   * @defaultValue `5`
   */
  readonly probe?: number | undefined
}

/** Who discards, and why. */
export interface DiscardOptions {
  /** The person or program, 1 to 255 characters. Recorded. */
  readonly by: string
  /** 1 to 2,000 characters. Recorded, and shown by `bus.deliveries`. */
  readonly reason: string
  /** Only counts, and changes nothing. @defaultValue `false` */
  readonly dryRun?: boolean | undefined
}

/** With `dryRun: true` what would be done; otherwise the operation that does it. */
export type PreviewOr<T, O> = O extends { readonly dryRun: true } ? DeadLetterPreview : T

/** Reads the dead letters of all subscriptions, and decides what becomes of them. Works from any process, started or not. */
export interface DeadLetters extends DeadLetterReads {
  /**
   * One dead letter with its attempts, its key, and what a redrive would do. Undefined if the event is no dead letter of the subscription, or
   * is parked behind another one.
   * @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_NOT_FOUND`, `BUS_INVALID_OPTION`
   */
  get: (id: string, subscription: string) => Promise<DeadLetterDetails | undefined>
  /**
   * Has dead letters tried again, with all their attempts; their history is kept. It is an operation: `bus.operations` has its progress, holds
   * and ends it, and any process that has started does it, also after a crash. It takes those that are dead letters now, in the order in which
   * they became that, and counts as `skipped` those that somebody else has redriven or discarded meanwhile. In an ordered subscription a
   * dead letter that holds its key releases it, and the events behind it follow in their order; one that was skipped goes to the end of
   * its key.
   * @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_NOT_FOUND`, `BUS_INVALID_OPTION`
   */
  redrive: <const O extends RedriveOptions>(
    selection: DeadLetterSelection,
    options: O,
  ) => Promise<PreviewOr<Operation, O>>
  /**
   * Gives up dead letters: their events are never delivered to the subscription. `bus.deliveries` says `discarded`, by whom and why. The key
   * that one of them holds is released, and the events behind it are delivered. It is an operation, as a redrive is.
   * @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_NOT_FOUND`, `BUS_INVALID_OPTION`
   */
  discard: <const O extends DiscardOptions>(
    selection: DeadLetterSelection,
    options: O,
  ) => Promise<PreviewOr<Operation, O>>
  /**
   * Delivers an edited copy of an event in the place of a dead letter, to that subscription alone. The copy is in the log, with the event as
   * its cause and without its business id and expiry; the dead letter is discarded. The audit names the places that differ, without values.
   * @throws a {@link ConfigurationError} `BUS_DEAD_LETTER_NOT_FOUND`, `BUS_SUBSCRIPTION_NOT_FOUND`, `BUS_INVALID_OPTION`
   * @throws an {@link InvalidEventError} if the payload does not fit its schema, has the text `[redacted]` where a hidden value is not there to
   *   be kept, or the catalogue of this process does not know the type
   */
  redriveEdited: (id: string, subscription: string, options: EditedRedriveOptions) => Promise<EditedRedrive>
}

/** What is asked for, checked. */
interface Request {
  readonly kind: OperationKind
  readonly action: string
  readonly selection: DeadLetterSelection
  readonly filter: StoredFilter
  readonly by: string
  readonly reason: string | undefined
  readonly dryRun: boolean
  readonly rate?: number | undefined
  readonly options?: object | undefined
}

/** @param operations - to read the operation that was written */
export function createDeadLetters(
  database: Database,
  operations: Operations,
  settings: PublishSettings,
  logger: BusLogger,
  recorder: Pick<Recorder, 'redriven'>,
): DeadLetters {
  async function find(subscription: unknown): Promise<RegisteredSubscription> {
    assertTextOption('subscription', subscription, { max: limits.subscriptionNameLength })
    return findSubscription(database, subscription)
  }

  async function run({
    filter,
    dryRun,
    options,
    ...request
  }: Request): Promise<DeadLetterPreview | Operation> {
    const subscriptions = await subscriptionsOf(database, filter)
    if (dryRun) return previewLetters(database, filter, subscriptions)
    const { types } = filter
    const counted = await countLetters(database, filter)
    const id = await database.transaction(async (client) => {
      // What becomes a dead letter from now on is not selected.
      const { rows } = await client.query<{ now: string }>(
        `select to_char(now() at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as now`,
      )
      return insertOperation(client, {
        ...request,
        subscription: filter.subscription,
        subscriptionIds: [...counted.keys()],
        options: { ...options, filter: { ...filter, through: rows[0]?.now } },
        totalCount:
          types === undefined ? [...counted.values()].reduce((sum, { count }) => sum + count, 0) : undefined,
      })
    })
    return operations.get(id)
  }

  return {
    ...createDeadLetterReads(database),
    async get(id, subscription) {
      return inspectLetter(database, await find(subscription), idOption('id', id))
    },
    async redrive<const O extends RedriveOptions>(selection: DeadLetterSelection, options: O) {
      const filter = checkSelection(selection, 'deadLetters.redrive')
      assertObject('options like { by, reason }', options)
      refuseUnknownKeys(options, ['by', 'reason', 'dryRun', 'rate', 'probe'], 'deadLetters.redrive')
      const { by, reason } = checkActor(options)
      const { rate } = options
      const probe = integerOption('probe', options.probe, limits.probeCount)
      return (await run({
        ...{ kind: 'redrive', action: 'deadLetters.redrive', selection, filter, by, reason },
        dryRun: booleanOption('dryRun', options.dryRun, false),
        rate:
          rate === undefined
            ? undefined
            : integerOption('rate', rate, { min: 1, max: limits.operationRate, default: 1 }),
        options: { probe },
      })) as PreviewOr<Operation, O>
    },
    async discard<const O extends DiscardOptions>(selection: DeadLetterSelection, options: O) {
      const filter = checkSelection(selection, 'deadLetters.discard')
      assertObject('options like { by, reason }', options)
      refuseUnknownKeys(options, ['by', 'reason', 'dryRun'], 'deadLetters.discard')
      const { by } = checkActor(options)
      const reason = textOption('reason', options.reason, { ...reasonLength, min: 1 })
      return (await run({
        ...{ kind: 'discard', action: 'deadLetters.discard', selection, filter, by, reason },
        dryRun: booleanOption('dryRun', options.dryRun, false),
      })) as PreviewOr<Operation, O>
    },
    async redriveEdited(id, subscription, given) {
      const edit = checkEdit(given)
      const eventId = idOption('id', id)
      const registered = await find(subscription)
      await readEntry(database, registered, eventId)
      const plan = await planEdit(database, settings, registered.name, eventId, edit)
      if (edit.dryRun) return { id: undefined, changes: plan.changes }
      await assertUsableBoss(database)
      const copyId = await database.transaction(async (client) =>
        redriveCopy({ client, database, logger }, registered, eventId, plan, edit),
      )
      recorder.redriven(registered.name, 1)
      return { id: copyId, changes: plan.changes }
    },
  }
}
