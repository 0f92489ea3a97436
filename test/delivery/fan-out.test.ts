import { expect, test } from 'vitest'
import { fanOut, maxFanOut } from '../../src/delivery/fan-out.ts'
import type { ClaimedEvent } from '../../src/outbox/relay.ts'

const event = (id: string, type: string, routedThrough?: number): ClaimedEvent => ({
  ...{ id, type, tenantId: 't', orderingKey: undefined, payloadBytes: 1, routedThrough },
})
const wide = Array.from({ length: maxFanOut + 10 }, (_, index) => ({
  id: index + 1,
  matches: (type: string) => type === 'wide' || (type === 'last' && index === maxFanOut + 9),
}))
const last = wide.at(-1)

test('a claim serves so many subscriptions, and leaves an event for those behind them', () => {
  const first = fanOut([event('a', 'wide')], wide)
  expect([...first.shares.keys()].map(({ id }) => id)).toEqual(wide.slice(0, maxFanOut).map(({ id }) => id))
  expect(first.left).toEqual(new Map([['a', maxFanOut]]))
  const second = fanOut([event('a', 'wide', maxFanOut)], wide)
  expect([...second.shares.keys()].map(({ id }) => id)).toEqual(wide.slice(maxFanOut).map(({ id }) => id))
  expect(second.left.size).toBe(0)
})

test('no event is handed to a subscription before one that stands before it in the claim', () => {
  const { shares, left } = fanOut([event('z', 'last'), event('a', 'wide'), event('b', 'last')], wide)
  // There was room for the last subscription, and the first event has gone there; `b` would overtake `a`.
  expect(shares.get(last ?? wide[0] ?? never())?.map(({ id }) => id)).toEqual(['z'])
  expect(left).toEqual(
    new Map([
      ['a', maxFanOut - 1],
      ['b', 0],
    ]),
  )
  const next = fanOut([event('a', 'wide', maxFanOut - 1), event('b', 'last', 0)], wide)
  expect(next.shares.get(last ?? wide[0] ?? never())?.map(({ id }) => id)).toEqual(['a', 'b'])
  expect(next.left.size).toBe(0)
})

test('claims in turn hand every event to every subscription that wants it, once and in their order', () => {
  const types = ['wide', 'last', 'wide', 'nobody', 'last', 'wide']
  let waiting = types.map((type, index) => event(String(index), type))
  const got = new Map<number, string[]>()
  for (let claims = 0; waiting.length > 0; claims += 1) {
    expect(claims).toBeLessThan(4)
    const { shares, left } = fanOut(waiting, wide)
    expect(shares.size).toBeLessThanOrEqual(maxFanOut)
    for (const [{ id }, events] of shares) got.set(id, [...(got.get(id) ?? []), ...events.map((e) => e.id)])
    waiting = waiting.filter(({ id }) => left.has(id)).map((e) => ({ ...e, routedThrough: left.get(e.id) }))
  }
  for (const { id } of wide)
    expect(got.get(id)).toEqual(id === last?.id ? ['0', '1', '2', '4', '5'] : ['0', '2', '5'])
})

function never(): never {
  throw new Error('there are subscriptions')
}
