import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { expect, inject, onTestFinished, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { asAdmin } from '../../src/testing/databases.ts'
import { until } from '../support/database.ts'

const note = { type: 'note', tenantId: 'acme', payload: 1 } as const

test.each(['MyApp', 'bus-sa@my-project.iam', 'a "quoted" name', "o'reilly", 'Größe $1', 'select'])(
  'a role, a database and a schema of the path that are called like %s can migrate, deliver and read',
  async (base) => {
    const name = `${base} ${randomUUID().slice(0, 8)}`
    const quoted = pg.escapeIdentifier(name)
    const { hostname: host, port } = new URL(inject('serverUrl'))
    const config = { host, port: Number(port), user: name, password: 'test', database: name }
    await asAdmin(inject('serverUrl'), async (admin) => {
      await admin.query(`create role ${quoted} login createrole password 'test'`)
      await admin.query(`create database ${quoted} owner ${quoted} template template0`)
      await admin.query(`alter database ${quoted} set search_path = ${quoted}, public`)
    })
    onTestFinished(async () =>
      asAdmin(inject('serverUrl'), async (admin) => {
        await admin.query(`drop database if exists ${quoted} with (force)`)
        await admin.query(`drop owned by ${quoted}`)
        await admin.query(`drop role ${quoted}`)
      }),
    )
    const owner = new pg.Client(config)
    await owner.connect()
    onTestFinished(async () => owner.end())
    await owner.query(`create schema ${quoted}`)
    await owner.query('create table mine (id uuid)')
    // The roles of the bus are the cluster's: an administrator lets this one become bus_tenant where they are there already.
    await asAdmin(inject('serverUrl'), async (admin) => {
      await admin.query(`grant bus_tenant to ${quoted}`)
    })
    const bus = testBus(config)
    await bus.migrate()
    await bus.migrate()
    bus.subscribe({ name: 'seen', events: ['note'], handler: () => {} })
    bus.subscribe({
      name: 'once',
      events: ['note'],
      mode: 'exactly-once',
      handler: async ({ id }, { tx }) => tx.execute(`insert into mine values ('${id}')`),
    })
    await bus.start()
    const published = await bus.tryPublish(note)
    await until(
      'it is delivered',
      async () =>
        (await bus.deliveries(published?.id ?? '')).filter(({ state }) => state === 'delivered').length === 2,
    )
    expect((await owner.query('select id from mine')).rows).toEqual([{ id: published?.id }])
    expect(await bus.tenant('acme').events.find()).toHaveLength(1)
  },
)
