import { describe, expect, test } from 'vitest'
import { bus as busPlugin, type BusPluginOptions } from '../../src/fastify/index.ts'
import { StateError } from '../../src/index.ts'
import { newBus, testApp } from './app.ts'

/** Nothing connects before the app is ready. */
const nowhere = 'postgres://127.0.0.1:1/nowhere'

test('registering decorates the app and its requests', async () => {
  const app = testApp()
  expect(app.hasDecorator('bus')).toBe(false)
  await app.register(busPlugin, newBus(nowhere))
  expect(app.hasDecorator('bus')).toBe(true)
  expect(app.hasRequestDecorator('bus')).toBe(true)
  expect(app.hasPlugin('bossbus')).toBe(true)
})

test.each([
  [{ retention: { logDays: 0 } }, 'retention.logDays'],
  [{ onDeadLetter: 1 as never }, 'onDeadLetter'],
  [{ deadLetterAlert: { count: 0, perSeconds: 1, onAlert: () => {} } }, 'deadLetterAlert.count'],
  [{ health: { loopLimitSeconds: 0 } }, 'health.loopLimitSeconds'],
  [{ canary: { everySeconds: 0 } }, 'canary.everySeconds'],
  [{ admission: { maxOutboxDepth: 0 } }, 'admission.maxOutboxDepth'],
  [{ maxPayloadBytes: 0 }, 'maxPayloadBytes'],
])('the bus that it creates gets every option of createBus: %o', async (wrong, option) => {
  const app = testApp()
  await expect(app.register(busPlugin, newBus(nowhere, wrong))).rejects.toMatchObject({
    code: 'BUS_INVALID_OPTION',
    option,
  })
})

test('registering inside a plugin keeps the bus there', async () => {
  const app = testApp()
  await app.register(async (child) => {
    await child.register(busPlugin, newBus(nowhere))
    expect(child.hasDecorator('bus')).toBe(true)
  })
  expect(app.hasDecorator('bus')).toBe(false)
})

describe('registering twice', () => {
  test('is refused in the same app', async () => {
    const app = testApp()
    await app.register(busPlugin, newBus(nowhere))
    const again = app.register(busPlugin, newBus(nowhere))
    await expect(again).rejects.toThrow(StateError)
    await expect(again).rejects.toMatchObject({
      code: 'BUS_INVALID_STATE',
      message: expect.stringContaining('is already registered') as string,
    })
  })

  test('is refused in a plugin of the app', async () => {
    const app = testApp()
    await app.register(busPlugin, newBus(nowhere))
    await expect(
      app.register(async (child) => {
        await child.register(busPlugin, newBus(nowhere))
      }),
    ).rejects.toMatchObject({ code: 'BUS_INVALID_STATE' })
  })

  test('is possible in two plugins beside each other', async () => {
    const app = testApp()
    const buses = new Set<unknown>()
    for (const prefix of ['/a', '/b']) {
      await app.register(
        async (child) => {
          await child.register(busPlugin, newBus(nowhere))
          buses.add(child.bus)
        },
        { prefix },
      )
    }
    expect(buses.size).toBe(2)
  })
})

test('an app whose name `bus` is taken refuses the plugin', async () => {
  const app = testApp()
  app.decorate('bus', undefined as never)
  await expect(app.register(busPlugin, newBus(nowhere))).rejects.toMatchObject({ code: 'BUS_INVALID_STATE' })
})

test('Fastify refuses the plugin once the app is ready', async () => {
  const app = testApp()
  await app.ready()
  const register = async (): Promise<void> => {
    await app.register(busPlugin, newBus(nowhere))
  }
  await expect(register()).rejects.toMatchObject({
    code: 'AVV_ERR_ROOT_PLG_BOOTED',
    message: 'Root plugin has already booted',
  })
})

describe('options', () => {
  const refused: [name: string, options: object, message: string][] = [
    ['an unknown key', { ...newBus(nowhere), migrat: true }, 'Did you mean `migrate`?'],
    ['a key that Fastify has for plugins with routes', { ...newBus(nowhere), prefix: '/x' }, '`prefix`'],
    ['no options', {}, '`events`'],
    ['a migrate that is no boolean', newBus(nowhere, { migrate: 'yes' as never }), '`migrate`'],
    ['a negative graceMs', newBus(nowhere, { graceMs: -1 }), '`graceMs`'],
    ['a database that is no URL', newBus('localhost:5432'), '`database`'],
    ['a bus that is none', { bus: {} }, 'Expected `bus` to be a bus'],
    ['a bus that is null', { bus: null }, 'Expected `bus` to be a bus'],
    ['a bus and what another is made from', { bus: {}, database: nowhere }, 'Unknown option `database`'],
  ]
  test.each(refused)('%s is refused when registering', async (_, options, message) => {
    await expect(testApp().register(busPlugin, options as BusPluginOptions)).rejects.toMatchObject({
      code: 'BUS_INVALID_OPTION',
      message: expect.stringContaining(message) as string,
    })
  })

  test('undefined stands for the default', async () => {
    const app = testApp()
    const options = { bus: undefined, migrate: undefined, graceMs: undefined, logger: undefined }
    await app.register(busPlugin, newBus(nowhere, options))
    expect(app.bus.state).toBe('created')
  })
})
