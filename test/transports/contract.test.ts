import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { StoredEvent } from '../../src/index.ts'
import { transportContract, type ContractMessage } from '../../src/testing/index.ts'
import { contractEvent } from '../../src/testing/transport-contract-events.ts'
import { consoleTransport, fanOut, file, noop, type Transport } from '../../src/transports/index.ts'

const paths = new Map<Transport, string>()

async function newFile(): Promise<Transport> {
  const folder = await mkdtemp(join(tmpdir(), 'bossbus-file-'))
  onTestFinished(async () => rm(folder, { recursive: true, force: true }))
  const transport = file({ path: join(folder, 'events.ndjson') })
  paths.set(transport, join(folder, 'events.ndjson'))
  return transport
}

async function linesOf(transport: Transport): Promise<ContractMessage[]> {
  const text = await readFile(paths.get(transport) ?? '', 'utf8')
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as { id: string; data: unknown })
    .map(({ id, data }) => ({ id, payload: data }))
}

describe('file', () => {
  const cases = transportContract({
    create: newFile,
    receive: linesOf,
    createUnreachable: () => file({ path: '/nowhere/at/all/events.ndjson' }),
  })
  test.each(cases)('$name', async ({ run }) => expect(run()).resolves.toBeUndefined())
})

describe('a fan-out of two files', () => {
  const cases = transportContract({
    create: async () => fanOut([await newFile(), await newFile()]),
    receive: async (transport) => {
      const [first = [], second] = await Promise.all((transport.targets ?? []).map(linesOf))
      assert.deepEqual(second, first)
      return first
    },
  })
  test.each(cases)('$name', async ({ run }) => expect(run()).resolves.toBeUndefined())
})

test.each([
  ['noop', noop()],
  ['console', consoleTransport({ write: () => {} })],
])('%s accepts everything, before and after it is closed', async (_, transport) => {
  const signal = new AbortController().signal
  await transport.check({ signal })
  await transport.close()
  const events: StoredEvent[] = [contractEvent({}), contractEvent({})]
  expect(await transport.publish(events, { signal })).toEqual([
    { status: 'delivered' },
    { status: 'delivered' },
  ])
})

/** A transport with a fault, and the case that finds it. */
const faults: readonly (readonly [string, string, (good: Transport) => Partial<Transport>])[] = [
  ['a name with a space', 'describes itself', () => ({ name: 'two words' })],
  [
    'fewer results than events',
    'as many events as a call takes all arrive',
    (good) => ({ publish: async (events, call) => (await good.publish(events, call)).slice(1) }),
  ],
  [
    'an event that is lost',
    'as many events as a call takes all arrive',
    (good) => ({
      publish: async (events, call) => [
        { status: 'delivered' },
        ...(events.length > 1 ? await good.publish(events.slice(1), call) : []),
      ],
    }),
  ],
  [
    'events in another order',
    'the events of a key arrive in order',
    (good) => ({ publish: async (events, call) => good.publish(events.toReversed(), call) }),
  ],
  [
    'a payload that is changed',
    'each payload arrives as it is',
    (good) => ({
      publish: async (events, call) =>
        good.publish(
          events.map((event) => ({ ...event, payload: event.payload === null ? {} : event.payload })),
          call,
        ),
    }),
  ],
  [
    'a second event with the same id that fails',
    'an event may be sent again',
    (good) => {
      const seen = new Set<string>()
      return {
        publish: async (events, call) => {
          if (events.some(({ id }) => seen.has(id))) throw new Error('a duplicate')
          for (const { id } of events) seen.add(id)
          return good.publish(events, call)
        },
      }
    },
  ],
  [
    'events that are sent after `close`',
    'after `close` nothing is sent, and `close` may be repeated',
    () => ({ close: async () => {} }),
  ],
]

test.each(faults)('the contract finds %s', async (_, caseName, faultOf) => {
  const goods = new Map<Transport, Transport>()
  const cases = transportContract({
    create: async () => {
      const good = await newFile()
      const bad: Transport = { ...good, ...faultOf(good) }
      goods.set(bad, good)
      return bad
    },
    receive: async (bad) => linesOf(goods.get(bad) ?? bad),
  })
  const found = cases.find(({ name }) => name === caseName)
  await expect(found?.run()).rejects.toThrow(/./)
})
