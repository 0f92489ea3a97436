import { expect, test } from 'vitest'
import { testBus, type PaymentBus } from '../../support/bus.ts'
import { createTestDatabase } from '../../support/database.ts'
import { refusalOf } from '../../foundation/refusal.ts'

function subscribed(url: string, ordered: boolean | undefined): PaymentBus {
  const bus = testBus(url)
  bus.subscribe({ name: 'fixed', events: ['note'], ordered, handler: () => {} })
  return bus
}

test.each([true, false])(
  'a subscription with ordered: %s starts again, and is refused when it changes',
  async (ordered) => {
    const { url, rows } = await createTestDatabase()
    const first = subscribed(url, ordered)
    await first.start()
    await first.stop()
    const registered = await rows('select options, revision from bus.subscriptions')
    const again = subscribed(url, ordered)
    await again.start()
    await again.stop()
    const changed = subscribed(url, ordered ? undefined : true)
    const error = await refusalOf(async () => changed.start())
    expect(error).toMatchObject({
      code: 'BUS_SUBSCRIPTION_ORDER_CHANGED',
      name: 'ConfigurationError',
      retryable: false,
    })
    expect(await rows('select options, revision from bus.subscriptions')).toEqual(registered)
    // The statement of the message does what it says.
    await rows(/update bus\.subscriptions .*$/.exec(error.message)?.[0] ?? '')
    await changed.start()
    expect(changed.state).toBe('started')
  },
)

test('onKeyFailure may change', async () => {
  const { url, rows } = await createTestDatabase()
  for (const onKeyFailure of ['block', 'skip', 'park'] as const) {
    const bus = testBus(url)
    bus.subscribe({ name: 'fixed', events: ['note'], ordered: true, onKeyFailure, handler: () => {} })
    await bus.start()
    expect(await rows(`select options->>'onKeyFailure' as rule from bus.subscriptions`)).toEqual([
      { rule: onKeyFailure },
    ])
    await bus.stop()
  }
})

test('releasing what does not wait changes nothing, and a subscription that does not exist is refused', async () => {
  const { url } = await createTestDatabase()
  const bus = subscribed(url, true)
  await bus.start()
  const key = { subscription: 'fixed', tenantId: 'acme', orderingKey: 'k' }
  expect(await bus.blockedKeys.release(key)).toBe(false)
  expect(
    await refusalOf(async () => bus.blockedKeys.release({ ...key, subscription: 'unknown' })),
  ).toMatchObject({ code: 'BUS_SUBSCRIPTION_NOT_FOUND', name: 'ConfigurationError', retryable: false })
})

test('bad input to list and release is refused before anything is read', async () => {
  const { url } = await createTestDatabase()
  const { blockedKeys } = testBus(url)
  const key = { subscription: 'fixed', tenantId: 'acme', orderingKey: 'k' }
  const { list, release } = blockedKeys as unknown as Record<
    'list' | 'release',
    (given: unknown) => Promise<unknown>
  >
  for (const given of [
    null,
    'k',
    {},
    { ...key, tenantId: 5 },
    { ...key, orderingKey: undefined },
    { ...key, skipFailed: 'yes' },
    { ...key, skip: true },
  ])
    expect(await refusalOf(async () => release(given))).toMatchObject({ code: 'BUS_INVALID_OPTION' })
  for (const given of [null, { limit: 0 }, { limit: 1001 }, { subscription: 5 }, { tenant: 'acme' }])
    expect(await refusalOf(async () => list(given))).toMatchObject({ code: 'BUS_INVALID_OPTION' })
  expect(await list({ limit: 1000 })).toEqual([])
  expect(await refusalOf(async () => list({ subscription: 'fixed' }))).toMatchObject({
    code: 'BUS_SUBSCRIPTION_NOT_FOUND',
  })
})
