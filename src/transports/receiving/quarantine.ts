import type { BusErrorCode } from '../../foundation/errors.ts'

/** Every {@link QuarantineState}. */
export const quarantineStates = ['new', 'retrying', 'stored', 'discarded'] as const

/**
 * `new`: nobody has decided about it. `retrying`: a process that runs its receiver will try it. `stored`: it was tried again and has become
 * events, or is skipped by `map`. `discarded`: it never will.
 */
export type QuarantineState = (typeof quarantineStates)[number]

/** A message that could not become an event. */
export interface QuarantinedMessage {
  readonly id: string
  /** The name that was given to `bus.receive`. */
  readonly receiver: string
  /** The id that its system gave it, or a hash of it. Undefined if it gave none. */
  readonly messageId: string | undefined
  readonly state: QuarantineState
  /** Why it is here: a code of docs/errors.md. */
  readonly code: BusErrorCode
  readonly reason: string
  /** The topic, queue, stream or path. */
  readonly from: string
  readonly contentType: string | undefined
  readonly bodyBytes: number
  /** Whether a part of it is not stored: it cannot be tried again. */
  readonly isCut: boolean
  /** How often its system has delivered it. */
  readonly receivedCount: number
  readonly receivedAt: Date
  readonly lastReceivedAt: Date
  /** Who has had it tried again or discarded, and why. */
  readonly decidedBy: string | undefined
  readonly decidedReason: string | undefined
  readonly decidedAt: Date | undefined
  /** The events that it has become. */
  readonly eventIds: readonly string[]
}

/** A message of the quarantine with all that is stored of it. */
export interface QuarantinedMessageDetails extends QuarantinedMessage {
  readonly key: string | undefined
  readonly headers: Readonly<Record<string, string>>
  /** At most its first 16 MiB. */
  readonly body: Uint8Array
}

/** Conditions on messages of the quarantine. */
export interface QuarantineConditions {
  readonly receiver?: string | undefined
  /** The code of the reason. */
  readonly code?: string | undefined
  /** Received first at this time or later. */
  readonly from?: Date | undefined
  /** Received first before this time. */
  readonly to?: Date | undefined
}

/** Which messages to list. */
export interface QuarantineFilter extends QuarantineConditions {
  /** @defaultValue `'new'` */
  readonly state?: QuarantineState | undefined
  /** Only messages older than this one: the `id` of the last one of the page before. */
  readonly after?: string | undefined
  /** 1 to 1,000. @defaultValue `100` */
  readonly limit?: number | undefined
}

/** Which messages a change is about: those that satisfy all that is given, of which there is at least one condition. */
export interface QuarantineSelection extends QuarantineConditions {
  /** 1 to 1,000. */
  readonly ids?: readonly string[] | undefined
}

/** Who changes the quarantine, and why. */
export interface QuarantineChange {
  /** The person or program, 1 to 255 characters. Recorded. */
  readonly by: string
  /** Up to 2,000 characters. Recorded. */
  readonly reason?: string | undefined
  /** Only counts. @defaultValue `false` */
  readonly dryRun?: boolean | undefined
}

/** How many messages a change was about. */
export interface QuarantineChanged {
  /** At most 10,000 in a call: if it is that many, call it again for the others. */
  readonly count: number
}

/** Messages of other systems that could not become events. Works in every process, started or not. */
export interface Quarantine {
  /** A page of messages, newest first. @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
  list: (filter?: QuarantineFilter) => Promise<QuarantinedMessage[]>
  /** One message with its headers and its body; undefined if there is none. @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
  get: (id: string) => Promise<QuarantinedMessageDetails | undefined>
  /**
   * Has messages go through `map` of their receiver again, in a process that runs it: those that are `new`, and, by their ids, those that
   * were discarded. One that becomes events is `stored`; one that fails again is `new`, with the new reason. Repeating it is harmless: a
   * message becomes its events once.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`
   */
  retry: (selection: QuarantineSelection, change: QuarantineChange) => Promise<QuarantineChanged>
  /**
   * Gives messages up. They stay for a time, so that they are known if they come again: `retention.quarantineDays`.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` also without a `reason`
   */
  discard: (
    selection: QuarantineSelection,
    change: QuarantineChange & { readonly reason: string },
  ) => Promise<QuarantineChanged>
}
