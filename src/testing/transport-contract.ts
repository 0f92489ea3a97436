import assert from 'node:assert/strict'
import type { StoredEvent } from '../events/envelope.ts'
import { withTimeout } from '../foundation/with-timeout.ts'
import type { PublishResult, Transport } from '../transports/sending/transport.ts'
import { contractEvent, hardKeys, hardPayloads, manyEvents } from './transport-contract-events.ts'

/** A message, as the system of a transport handed it to a reader. */
export interface ContractMessage {
  /** The id of its event. */
  readonly id: string
  readonly payload: unknown
}

/** Options of {@link transportContract}. */
export interface TransportContractOptions {
  /** Makes a transport that sends to a topic, queue or file of its own, which is empty. Called by each case. */
  readonly create: () => Transport | Promise<Transport>
  /**
   * The messages that this transport has sent, in the order in which a reader gets them: those of a key in theirs. Waits until there are
   * `count`, or for some seconds. Called at most once in each case.
   */
  readonly receive: (transport: Transport, count: number) => Promise<readonly ContractMessage[]>
  /** Makes a transport to a system that is down. Without it, that is not tested. */
  readonly createUnreachable?: (() => Transport | Promise<Transport>) | undefined
  /** A payload of so many bytes is too large for the system. Without it, that is not tested. */
  readonly tooLargeBytes?: number | undefined
}

/** One requirement of the contract. */
export interface ContractCase {
  readonly name: string
  /** Rejects with an AssertionError if the transport does not fulfil it. */
  readonly run: () => Promise<void>
}

/** A call that takes longer hangs. */
const callLimitMs = 60_000

/**
 * What every transport must do, as cases for any test runner.
 *
 * @example
 * ```ts
 * import { transportContract, type TransportContractOptions } from 'bossbus/testing'
 *
 * declare const options: TransportContractOptions
 * for (const { name, run } of transportContract(options)) test(name, run)
 * ```
 */
export function transportContract(options: TransportContractOptions): readonly ContractCase[] {
  const { create, receive, createUnreachable, tooLargeBytes } = options

  /** A case with a transport of its own, which is closed after it. */
  function withTransport(name: string, check: (transport: Transport) => Promise<void>): ContractCase {
    return {
      name,
      async run() {
        const transport = await create()
        try {
          await transport.open?.()
          await check(transport)
        } finally {
          await withTimeout(transport.close(), callLimitMs, () => assert.fail('`close` does not end'))
        }
      },
    }
  }

  async function sendAndReceive(
    transport: Transport,
    events: readonly StoredEvent[],
  ): Promise<readonly ContractMessage[]> {
    for (let at = 0; at < events.length; at += transport.maxEvents)
      await sendAll(transport, events.slice(at, at + transport.maxEvents))
    return receive(transport, events.length)
  }

  const cases: ContractCase[] = [
    withTransport('describes itself', async (transport) => {
      assert.match(transport.name, /^[A-Za-z0-9._-]{1,40}$/, '`name`')
      assert.ok(['key', 'none'].includes(transport.order), '`order`')
      assert.ok(Number.isInteger(transport.maxEvents) && transport.maxEvents >= 1, '`maxEvents`')
    }),
    withTransport('`check` resolves', async (transport) => {
      await inTime('check', transport.check({ signal: never() }))
    }),
    withTransport('an empty call has no results', async (transport) => {
      assert.deepEqual(await inTime('publish', transport.publish([], { signal: never() })), [])
    }),
    withTransport('each payload arrives as it is', async (transport) => {
      const events = hardPayloads().map((payload) => contractEvent({ payload }))
      const messages = await sendAndReceive(transport, events)
      assert.deepEqual(payloadsById(messages), payloadsById(events))
    }),
    withTransport('each tenant, key, subject and metadata is accepted', async (transport) => {
      const events = hardKeys()
      const messages = await sendAndReceive(transport, events)
      assert.deepEqual(idsOf(messages), idsOf(events))
    }),
    withTransport('as many events as a call takes all arrive', async (transport) => {
      const events = manyEvents(Math.min(transport.maxEvents, 500), () => ({}))
      assert.deepEqual(idsOf(await sendAndReceive(transport, events)), idsOf(events))
    }),
    withTransport('calls at the same time do not disturb each other', async (transport) => {
      const calls = Array.from({ length: 8 }, () => manyEvents(Math.min(transport.maxEvents, 20), () => ({})))
      await Promise.all(calls.map(async (events) => sendAll(transport, events)))
      const events = calls.flat()
      assert.deepEqual(idsOf(await receive(transport, events.length)), idsOf(events))
    }),
    withTransport('the events of a key arrive in order', async (transport) => {
      if (transport.order !== 'key') return
      const events = manyEvents(120, (n) => ({ tenantId: `tenant-${n % 2}`, orderingKey: `key-${n % 6}` }))
      const messages = await sendAndReceive(transport, events)
      for (let key = 0; key < 6; key += 1) {
        const sent = events.filter((_, n) => n % 6 === key).map(({ id }) => id)
        const got = messages.map(({ id }) => id).filter((id) => sent.includes(id))
        assert.deepEqual([...new Set(got)], sent, `the events of key-${key}`)
      }
    }),
    withTransport('an event may be sent again', async (transport) => {
      const event = contractEvent({ orderingKey: 'k' })
      await sendAll(transport, [event])
      const messages = await sendAndReceive(transport, [event])
      assert.deepEqual([...new Set(messages.map(({ id }) => id))], [event.id])
    }),
    withTransport('a call whose signal is aborted ends', async (transport) => {
      const call = transport.publish(
        manyEvents(3, () => ({})),
        { signal: AbortSignal.abort() },
      )
      const results = await inTime('publish', call).catch(() => undefined)
      if (results !== undefined) assert.equal(results.length, 3)
    }),
    withTransport('after `close` nothing is sent, and `close` may be repeated', async (transport) => {
      await inTime('close', transport.close())
      await inTime('close', transport.close())
      const results = await inTime(
        'publish',
        transport.publish([contractEvent({})], { signal: never() }),
      ).catch(() => undefined)
      assertNone(results, ['rejected', 'delivered'])
    }),
  ]
  if (tooLargeBytes !== undefined)
    cases.push(
      withTransport(
        'an event that is too large is rejected, and the others of its call arrive',
        async (transport) => {
          const events = [
            contractEvent({}),
            contractEvent({ payload: 'x'.repeat(tooLargeBytes) }),
            contractEvent({}),
          ].slice(0, transport.maxEvents)
          const results = await inTime('publish', transport.publish(events, { signal: never() }))
          assert.deepEqual(
            results.map(({ status }) => status),
            ['delivered', 'rejected', 'delivered'].slice(0, events.length),
          )
          const arrived = events.filter((_, n) => n !== 1)
          assert.deepEqual(idsOf(await receive(transport, arrived.length)), idsOf(arrived))
        },
      ),
    )
  if (createUnreachable !== undefined)
    cases.push({
      name: 'a system that is down fails `check`, and gives each event a result that is retried',
      async run() {
        const transport = await createUnreachable()
        await transport.open?.()
        const signal = AbortSignal.timeout(20_000)
        await assert.rejects(async () => inTime('check', transport.check({ signal })))
        const results = await inTime('publish', transport.publish([contractEvent({})], { signal })).catch(
          () => undefined,
        )
        assertNone(results, ['delivered', 'rejected'])
        await inTime('close', transport.close())
      },
    })
  return cases
}

async function sendAll(transport: Transport, events: readonly StoredEvent[]): Promise<void> {
  const results = await inTime('publish', transport.publish(events, { signal: never() }))
  assert.equal(results.length, events.length, 'a result for each event')
  const failed = results.find(({ status }) => status !== 'delivered')
  if (failed !== undefined && 'error' in failed)
    assert.fail(`Expected each event to be delivered, got \`${failed.status}\`: ${String(failed.error)}`)
}

async function inTime<T>(method: string, call: Promise<T>): Promise<T> {
  return withTimeout(call, callLimitMs, () => assert.fail(`\`${method}\` does not end`)) as Promise<T>
}

/** Rejections and retries are both right: an event is then sent again. */
function assertNone(
  results: readonly PublishResult[] | undefined,
  statuses: readonly PublishResult['status'][],
): void {
  const wrong = results?.find(({ status }) => statuses.includes(status))
  assert.equal(wrong, undefined, `the status \`${wrong?.status}\``)
}

const never = (): AbortSignal => new AbortController().signal

/** Each once: systems without a key for duplicates may deliver one twice. */
function idsOf(messages: readonly { readonly id: string }[]): string[] {
  return [...new Set(messages.map(({ id }) => id))].toSorted()
}

function payloadsById(messages: readonly ContractMessage[]): Record<string, unknown> {
  return Object.fromEntries(
    messages
      .map(({ id, payload }): [string, unknown] => [id, payload])
      .toSorted(([a], [b]) => (a < b ? -1 : 1)),
  )
}
