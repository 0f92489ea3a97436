import pg from 'pg'
import { expect, onTestFinished } from 'vitest'
import type { Finding, FindingCode, HealthOptions } from '../../src/index.ts'
import { testBus, type PaymentBus } from './bus.ts'
import { until, type TestDatabase } from './database.ts'

export const note = { type: 'note', tenantId: 'acme', payload: 'x' } as const

/** A started bus that listens. */
export async function startBus(
  database: Pick<TestDatabase, 'url'>,
  options: Parameters<typeof testBus>[1] = {},
): Promise<PaymentBus> {
  const bus = testBus(database.url, options)
  bus.subscribe({ name: 'steady', events: ['note'], handler: () => {} })
  await bus.start()
  await until('it listens', async () => (await bus.health()).listening)
  return bus
}

export async function findingsOf(bus: PaymentBus, options?: HealthOptions): Promise<readonly FindingCode[]> {
  const { findings } = await bus.health(options)
  return findings.map(({ code }) => code)
}

/** Waits until there is a finding, and returns it; the others are of no interest. */
export async function waitFor(bus: PaymentBus, code: FindingCode): Promise<Finding> {
  let found: Finding | undefined
  await until(`there is ${code}`, async () => {
    const { findings } = await bus.health({ full: true })
    found = findings.find((finding) => finding.code === code)
    return found !== undefined
  })
  if (found === undefined) throw new Error('unreachable')
  expect(found.message).toMatch(/^\S.*[^.]$/s)
  expect(found.remedy).toMatch(/\S/)
  return found
}

/** A session of somebody else. */
export async function connect(
  { url }: Pick<TestDatabase, 'url'>,
  applicationName: string,
): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url, application_name: applicationName })
  client.on('error', () => {})
  await client.connect()
  onTestFinished(async () => client.end().catch(() => {}))
  return client
}
