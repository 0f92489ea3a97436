/** What the bus does on behalf of its caller, or of itself, and waits for. */
export type ClientOperation = 'publish' | 'cancel' | 'settle'

/**
 * Through this the engine tells what happens in this process. OpenTelemetry metrics and the Prometheus registry implement it; see
 * instruments.ts for the names, units and attributes that each call ends in.
 *
 * Every function is called once for each call of publish, each event or each handler at most. Arguments are positional and plain, so that
 * nothing is allocated where nobody records. None of them throws, and none keeps what it was given beyond texts of bounded number: types
 * and subscriptions are those of the code, error types those of `errorTypeOf`. There is no tenant, no id and no key among them.
 *
 * The canary is not told of: it says nothing about a service.
 */
export interface Recorder {
  /** Whether anybody records now. May change at any time: an SDK can be started after the bus. */
  readonly isOn: boolean
  /**
   * An operation has ended: `publish` (also publishMany and tryPublish), `cancel`, or `settle`, which writes outcomes in one transaction:
   * receipts, retries, dead letters.
   *
   * @param type - of its events; undefined where they have several types or one that is not in the catalogue, and for `cancel`
   * @param subscription - for `settle`
   * @param seconds - `publish`: from valid events to the answer of the database; the transaction commits later. `settle`: of the
   *   transaction; with exactly-once without the handlers in it
   * @param errorType - undefined where it succeeded
   */
  operation: (
    operation: ClientOperation,
    type: string | undefined,
    subscription: string | undefined,
    seconds: number,
    errorType: string | undefined,
  ) => void
  /**
   * Events of a type were sent to the database, duplicates among them. Called for each type of a call. What was refused before, such as an
   * invalid event, was not sent.
   *
   * @param errorType - undefined where the statement succeeded
   */
  sent: (type: string, count: number, errorType: string | undefined) => void
  /**
   * An attempt at an event has ended and counts. One that was cut short by a stop of the process, for example, does not.
   *
   * @param type - undefined where the event was not found
   * @param seconds - how long its handler took; undefined where none ran, because the event was not found or could not be upcast
   * @param waitSeconds - from the time when the event was published or due to its first handler call; undefined for later attempts and replays
   * @param errorType - undefined where the event is delivered
   */
  attempt: (
    type: string | undefined,
    subscription: string,
    seconds: number | undefined,
    waitSeconds: number | undefined,
    errorType: string | undefined,
  ) => void
  /** An event expired before it was delivered: no handler was called. */
  expired: (type: string | undefined, subscription: string) => void
  /** Events have become dead letters, and that is committed. */
  dead: (subscription: string, count: number) => void
  /** Dead letters were put back for another round of attempts, and that is committed. */
  redriven: (subscription: string, count: number) => void
}

/** Tells nobody. */
export const noRecorder: Recorder = {
  isOn: false,
  operation() {},
  sent() {},
  attempt() {},
  expired() {},
  dead() {},
  redriven() {},
}

/** Tells each of them. */
export function combineRecorders(recorders: readonly Recorder[]): Recorder {
  const [only, ...others] = recorders
  if (only === undefined) return noRecorder
  if (others.length === 0) return only
  return {
    get isOn() {
      return recorders.some(({ isOn }) => isOn)
    },
    operation(operation, type, subscription, seconds, errorType) {
      for (const recorder of recorders) recorder.operation(operation, type, subscription, seconds, errorType)
    },
    sent(type, count, errorType) {
      for (const recorder of recorders) recorder.sent(type, count, errorType)
    },
    attempt(type, subscription, seconds, waitSeconds, errorType) {
      for (const recorder of recorders) recorder.attempt(type, subscription, seconds, waitSeconds, errorType)
    },
    expired(type, subscription) {
      for (const recorder of recorders) recorder.expired(type, subscription)
    },
    dead(subscription, count) {
      for (const recorder of recorders) recorder.dead(subscription, count)
    },
    redriven(subscription, count) {
      for (const recorder of recorders) recorder.redriven(subscription, count)
    },
  }
}
