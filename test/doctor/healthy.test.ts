import { expect, onTestFinished, test } from 'vitest'
import { examine } from '../../src/doctor/doctor.ts'
import { testBus } from '../support/bus.ts'
import { until } from '../support/database.ts'
import { startOwnServer } from '../support/own-server.ts'

test('a database in use has no findings, as its owner and as a worker', async () => {
  const server = await startOwnServer(['fsync=on', 'full_page_writes=on'])
  await server.rows(`create role owner_of_all login createrole password 'x'`)
  await server.rows('grant bus_tenant, pg_read_all_stats to owner_of_all')
  await server.rows('create database shop owner owner_of_all')
  await server.rows(`create role shop login password 'x'`)
  await server.rows('grant bus_publisher, bus_worker, bus_tenant, pg_read_all_stats to shop')
  const urlOf = (user: string): string =>
    Object.assign(new URL(server.url), { username: user, password: 'x', pathname: '/shop' }).toString()
  const declare = (user: string) => {
    const bus = testBus(urlOf(user), { canary: true })
    onTestFinished(async () => bus.stop())
    const seen: unknown[] = []
    bus.subscribe({ name: 'steady', events: ['note'], handler: ({ payload }) => void seen.push(payload) })
    bus.subscribe({
      ...{ name: 'in-order', events: ['note'], ordered: true, mode: 'exactly-once' },
      handler: ({ payload }) => void seen.push(payload),
    })
    return { bus, seen }
  }
  await declare('owner_of_all').bus.migrate()
  const { bus, seen } = declare('shop')
  await bus.start()
  await until('it listens', async () => (await bus.health()).listening)
  await bus.tryPublish({ type: 'note', tenantId: 'acme', payload: 'x', orderingKey: 'a' })
  await until('it is delivered', () => seen.length === 2)
  expect(await bus.canary()).toMatchObject({ ok: true })

  const report = await examine({ database: urlOf('owner_of_all') })
  expect(report).toMatchObject({
    ...{ ok: true, findings: [], skipped: [] },
    facts: { database: 'shop', role: 'owner_of_all', isSuperuser: false, isPooled: false, isWritable: true },
  })
  expect(report.made.length).toBeGreaterThan(40)
  const asWorker = await examine({ database: urlOf('shop') })
  expect(asWorker).toMatchObject({ ok: true, skipped: [] })
  expect(asWorker.findings).toMatchObject([{ code: 'not-permitted', severity: 'info' }])
  expect(asWorker.findings[0]?.data['checks']).toMatchObject([{ check: 'sequences' }, { check: 'erasures' }])
})
