import { Controller, Scope, Injectable, type DynamicModule, type Type } from '@nestjs/common'
import { expect, test } from 'vitest'
import { createBus, type StoredEvent } from '../../src/index.ts'
import { BusModule, busToken } from '../../src/nestjs/index.ts'
import { paymentEvents, recordingLogger, testBus, type PaymentBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { decorateMethod, injectable, startApp, Subscribe } from './app.ts'

const note = (payload: unknown) => ({ type: 'note', tenantId: 'a', payload }) as const

type Note = StoredEvent<'note'>

/** A class whose method writes down what it is called with. */
function noteTaker(name: string): { readonly Notes: Type; readonly seen: unknown[] } {
  const seen: unknown[] = []
  class Notes {
    readonly self = name
    take({ payload }: Note): void {
      seen.push([this.self, payload])
    }
  }
  injectable(Notes)
  return { Notes, seen }
}

test('methods of providers and controllers handle events, from the start of the application to its end', async () => {
  const { url } = await createTestDatabase()
  const bus = testBus(url)
  const provider = noteTaker('provider')
  decorateMethod(provider.Notes, 'take', Subscribe({ name: 'provider', events: ['note'] }))
  const controller = noteTaker('controller')
  Controller()(controller.Notes)
  decorateMethod(controller.Notes, 'take', Subscribe({ name: 'controller', events: ['note'] }))
  decorateMethod(controller.Notes, 'take', Subscribe({ name: 'again', events: ['*'] }))
  const app = await startApp([BusModule.forBus(bus)], {
    providers: [provider.Notes],
    controllers: [controller.Notes],
  })
  expect(bus.state).toBe('started')
  expect(app.get(busToken)).toBe(bus)
  await bus.tryPublish(note(1))
  await until('all have it', () => provider.seen.length + controller.seen.length === 3)
  expect(provider.seen).toEqual([['provider', 1]])
  expect(controller.seen).toEqual([
    ['controller', 1],
    ['controller', 1],
  ])
  await app.close()
  expect(bus.state).toBe('stopped')
})

test('an application that closes lets handlers finish before other providers shut down, and publish meanwhile', async () => {
  const { url, count } = await createTestDatabase()
  const bus = testBus(url)
  const log: string[] = []
  const begun = Promise.withResolvers<void>()
  class Slow {
    async take({ tenantId }: Note, { publish }: { publish: PaymentBus['tryPublish'] }): Promise<void> {
      begun.resolve()
      await until('the bus stops', () => bus.state === 'stopping')
      await publish({ type: 'payment.refunded', tenantId, payload: { paymentId: 'p' } })
      log.push('handled')
    }
  }
  injectable(Slow)
  decorateMethod(Slow, 'take', Subscribe({ name: 'slow', events: ['note'] }))
  class Pool {
    async onApplicationShutdown(): Promise<void> {
      log.push(`pool ends, bus is ${bus.state}`)
      // As a request does that still runs.
      expect(await bus.tryPublish(note('late'))).toBeDefined()
    }
  }
  const app = await startApp([BusModule.forBus(bus, { graceMs: 20_000 })], {
    providers: [Slow, injectable(Pool)],
  })
  await bus.tryPublish(note(1))
  await begun.promise
  await app.close()
  expect(log).toEqual(['handled', 'pool ends, bus is stopping'])
  expect(bus.state).toBe('stopped')
  expect(await count('select count(*) from bus.deliveries where delivered_at is not null')).toBe(1)
  expect(await count('select count(*) from bus.events')).toBe(3)
})

test('a bus is made of what Nest injects, and migrates an empty database', async () => {
  const { url, count } = await createTestDatabase({ empty: true })
  class Settings {
    readonly url = url
  }
  injectable(Settings)
  // oxlint-disable-next-line typescript/no-extraneous-class -- Nest knows modules by their class
  class SettingsModule {}
  const imports = [{ module: SettingsModule, providers: [Settings], exports: [Settings] }]
  const useFactory = (settings: Settings) =>
    createBus({
      database: settings.url,
      events: paymentEvents,
      source: 'payment-service',
      logger: recordingLogger(),
    })
  const app = await startApp([
    BusModule.forBus({ imports, inject: [Settings], useFactory }, { migrate: true }),
  ])
  const bus = app.get<PaymentBus>(busToken)
  expect(bus.state).toBe('started')
  await bus.tryPublish(note(1))
  expect(await count('select count(*) from bus.events')).toBe(1)
  await app.close()
  expect(bus.state).toBe('stopped')
})

test('methods are inherited, and a class of its own takes the place of what it overrides', async () => {
  const { url } = await createTestDatabase()
  const bus = testBus(url)
  const seen: string[] = []
  class Base {
    one(): void {
      seen.push(`${this.constructor.name} one`)
    }
    two(): void {
      seen.push('base two')
    }
  }
  class Derived extends Base {
    override two(): void {
      seen.push('derived two')
    }
  }
  decorateMethod(Base, 'one', Subscribe({ name: 'one', events: ['note'] }))
  decorateMethod(Base, 'two', Subscribe({ name: 'base-two', events: ['note'] }))
  decorateMethod(Derived, 'two', Subscribe({ name: 'derived-two', events: ['note'] }))
  await startApp([BusModule.forBus(bus)], { providers: [injectable(Derived)] })
  await bus.tryPublish(note(1))
  await until('both are called', () => seen.length === 2)
  expect(seen.toSorted()).toEqual(['Derived one', 'derived two'])
  expect((await bus.subscriptions.list()).map(({ name }) => name).toSorted()).toEqual(['derived-two', 'one'])
})

test('a standard decorator is taken too', async () => {
  const { url } = await createTestDatabase()
  const bus = testBus(url)
  const { Notes, seen } = noteTaker('standard')
  const method = (Notes.prototype as { take: (event: Note) => void }).take
  const context = { kind: 'method', name: 'take', static: false, private: false }
  Subscribe({ name: 'standard', events: ['note'] })(method, context as ClassMethodDecoratorContext)
  await startApp([BusModule.forBus(bus)], { providers: [Notes] })
  await bus.tryPublish(note(1))
  await until('it is called', () => seen.length === 1)
  expect(seen).toEqual([['standard', 1]])
})

test('a bus that was started before is used, and neither started nor stopped', async () => {
  const { url } = await createTestDatabase()
  const bus = testBus(url)
  await bus.start()
  const app = await startApp([BusModule.forBus(bus)])
  expect(app.get(busToken)).toBe(bus)
  await app.close()
  expect(bus.state).toBe('started')
})

test('a bus that does not start fails the application, and is stopped', async () => {
  const bus = testBus('postgres://nobody@127.0.0.1:1/nowhere')
  await expect(startApp([BusModule.forBus(bus)])).rejects.toMatchObject({ code: 'BUS_DATABASE_UNAVAILABLE' })
  expect(bus.state).toBe('stopped')
})

const invalid = { code: 'BUS_INVALID_OPTION' }
const unconnected = (): PaymentBus => testBus('postgres://nobody@127.0.0.1:1/nowhere')

test.each([Scope.REQUEST, Scope.TRANSIENT])(
  'a method of a provider of another scope than the default is refused (%s)',
  async (scope) => {
    const { Notes } = noteTaker('scoped')
    Injectable({ scope })(Notes)
    decorateMethod(Notes, 'take', Subscribe({ name: 'scoped', events: ['note'] }))
    await expect(startApp([BusModule.forBus(unconnected())], { providers: [Notes] })).rejects.toMatchObject(
      invalid,
    )
  },
)

test('a second bus module is refused', async () => {
  const modules: DynamicModule[] = [
    BusModule.forBus(unconnected()),
    BusModule.forBus(unconnected(), { graceMs: 1 }),
  ]
  await expect(startApp(modules)).rejects.toMatchObject(invalid)
})

test('decorated methods of a bus that runs already are served', async () => {
  const { url } = await createTestDatabase()
  const bus = testBus(url)
  await bus.start()
  const { Notes } = noteTaker('late')
  decorateMethod(Notes, 'take', Subscribe({ name: 'late', events: ['note'] }))
  await startApp([BusModule.forBus(bus)], { providers: [Notes] })
  await until('it is served', async () => (await bus.subscriptions.list())[0]?.instanceCount === 1)
  expect(await bus.subscriptions.get('late')).toMatchObject({ state: 'active', service: 'payment-service' })
})

test('what is no bus, no method or no option is refused at once', async () => {
  for (const given of [undefined, null, 'bus', {}, { publish: () => {} }])
    expect(() => BusModule.forBus(given as never)).toThrow(expect.objectContaining(invalid))
  const bus = unconnected()
  expect(() => BusModule.forBus(bus, { migrate: 'yes' as never })).toThrow(expect.objectContaining(invalid))
  expect(() => BusModule.forBus(bus, { migrat: true } as never)).toThrow(/Did you mean `migrate`/)
  expect(() => BusModule.forBus({ useFactory: () => bus, injects: [] } as never)).toThrow(
    /Did you mean `inject`/,
  )
  const { Notes } = noteTaker('wrong')
  const decorator = Subscribe({ name: 'wrong', events: ['note'] })
  expect(() => decorateMethod(Notes, 'self', decorator)).toThrow(expect.objectContaining(invalid))
  expect(() => decorator(Notes as never, 'take', {})).toThrow(expect.objectContaining(invalid))
  for (const context of [
    { kind: 'method', name: 'take', static: true, private: false },
    { kind: 'method', name: '#take', static: false, private: true },
    { kind: 'field', name: 'take', static: false, private: false },
  ])
    expect(() => decorator(() => {}, context as never)).toThrow(expect.objectContaining(invalid))
  expect(() => Subscribe('note' as never)).toThrow(expect.objectContaining(invalid))
  await bus.stop()
  expect(() => BusModule.forBus(bus)).toThrow(expect.objectContaining({ code: 'BUS_INVALID_STATE' }))
})
