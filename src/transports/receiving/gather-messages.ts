import { BusError, type BusErrorCode } from '../../foundation/errors.ts'
import type { ReceivedMessage, ReceiveMessages } from './source.ts'

/** Calls at the same time. Meanwhile messages collect, so that the next calls are larger. */
const maxCalls = 4

/** Messages of a call, unless one alone has more. */
const maxMessages = 500

/** What any other call would meet too. */
const concernsAll: ReadonlySet<BusErrorCode> = new Set([
  'BUS_DATABASE_UNAVAILABLE',
  'BUS_OVERLOADED',
  'BUS_INVALID_STATE',
])

interface Waiting {
  readonly messages: readonly ReceivedMessage[]
  readonly signal: AbortSignal
  readonly settle: PromiseWithResolvers<void>
}

/**
 * Stores what several callers have at the same time in transactions of many: for systems that deliver one message at a time. The messages of
 * a caller stay together. There is no order among callers.
 */
export function createGatheringReceiver(receive: ReceiveMessages): ReceiveMessages {
  const waiting: Waiting[] = []
  let callCount = 0

  function flush(): void {
    while (waiting.length > 0 && callCount < maxCalls) {
      const some = nextOf(waiting)
      if (some.length === 0) continue
      callCount += 1
      void store(receive, some).finally(() => {
        callCount -= 1
        flush()
      })
    }
  }

  return async (messages, { signal }) => {
    signal.throwIfAborted()
    const settle = Promise.withResolvers<void>()
    waiting.push({ messages, signal, settle })
    // At the end of this turn of the event loop.
    setImmediate(flush)
    return settle.promise
  }
}

function nextOf(waiting: Waiting[]): Waiting[] {
  const some: Waiting[] = []
  let count = 0
  for (let next = waiting[0]; next !== undefined; next = waiting[0]) {
    if (some.length > 0 && count + next.messages.length > maxMessages) break
    waiting.shift()
    if (next.signal.aborted) {
      next.settle.reject(next.signal.reason)
      continue
    }
    some.push(next)
    count += next.messages.length
  }
  return some
}

/**
 * Never rejects. If they cannot be stored together, each half is tried by itself: the messages of one caller may fail for a reason of their own. The signals of
 * callers count until the call begins: what is being stored is stored for all.
 */
async function store(receive: ReceiveMessages, some: readonly Waiting[]): Promise<void> {
  const [first] = some
  if (first !== undefined && some.length === 1) {
    await receive(first.messages, { signal: first.signal }).then(first.settle.resolve, first.settle.reject)
    return
  }
  const all = some.flatMap(({ messages }) => messages)
  try {
    await receive(all, { signal: new AbortController().signal })
    for (const { settle } of some) settle.resolve()
  } catch (error) {
    if (error instanceof BusError && concernsAll.has(error.code)) {
      for (const { settle } of some) settle.reject(error)
      return
    }
    const half = Math.ceil(some.length / 2)
    await Promise.all([some.slice(0, half), some.slice(half)].map(async (each) => store(receive, each)))
  }
}
