import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { forBossSchema } from '../../src/database/boss-schema.ts'
import { hashOf, loadShippedSql } from '../../src/migrations/shipped-sql.ts'
import { testBus } from '../support/bus.ts'
import { createTestDatabase } from '../support/database.ts'
import { migrateTo } from '../support/migrations.ts'
import { checkedInSchema, describeSchema } from '../support/schema-snapshot.ts'

/** Each file that databases have been migrated with, and its hash. A file is added here when it is released, and never changed. */
const released: readonly (readonly [name: string, hash: string])[] = [
  ['0000_log_and_outbox', 'da911024e1fd8151a82b6c23bfdd390f74f15331c70d95d7a2219937c42a40b6'],
  ['0001_delivery', 'ed7e4a4bf3143f71cc59db0f5865127b2920403016e03dab624020f439e98fd3'],
  ['0002_partitions_and_sequences', 'db298eb1d61d722b39c44d389a1a6c3d235ac23868e57dade204922af4995007'],
  ['0003_tenancy_and_source_rules', '2378b56e72482a65356a1c5b38d1a612f43e350d4d2650aeb7401864b49b226a'],
  ['0004_catalogue_and_erasure', 'cdbd2337d3565a2c77ff0e25efbb95fccb8237cdbda485587f0f53fd5c9dd75c'],
  ['0005_ledger', '61ac69a34a9ac81d1878193822be53b4a196cef7ada8c245b77333f377b222dd'],
  ['0006_audit_and_operations', 'd8562dc4038caa4774a9a647c7df92cf9eb72e3fc54d827c58704ffbcd3279d9'],
  ['0007_find_and_explain', '149ae12458e658e547e3e780a1079c9587e801b60f5ed0549ae9e45e5a43db39'],
  ['0008_dashboard_views', 'c855514e8c6bc4176f9baec997456bd60920e76b8819dbcec078cdaedf06b045'],
  ['0009_dead_letters', '2c11ae296961b898fa3c224bca6702bd4ef35458f0b55a3e37251513211e7679'],
  ['0010_replay', 'be4f9f14544fb55580673f18363cd71ff61d228b66284dd10c0fa76566896173'],
  ['0011_subscriptions_at_run_time', 'a896fd54cfe36ef1bee7b986eddf02ef37517bab8d9fd283b06ccf219abe05af'],
  ['0012_retention', '7f253a3b31976fcaaf969c4e6a800bc380f48183b8464b7fef0e864a13715883'],
  ['0013_statistics', '9916d16d39ea3afdfaf17cfdbfd66467951af005167f6ade645fd800488d2e07'],
  ['0014_find_by_type', '277c6ccb8d4407649adfe649f7b58448977c9e621a9e67ab0eae167c442d146f'],
  ['0015_operator_reads', 'b186c9d11d7c96cac283ea073d4f31c0ae4e535a6235e4be0483ee207abbd48b'],
  ['0016_operations_review', 'f8431a3d74a0c2fdd88b60ac646d297ca27ef877161a8328b1b8290e624c994f'],
  ['0017_http', 'fa20dba8e0c3ff6ce6ac8b7fcfe6cadc9b4491231f769905ff6b7f753273b39e'],
  ['0018_same_functions', 'afc336e70b958d5d8bb178254e35380b9db5bb76b2b8de244179c751c0819a0f'],
]

test('released migrations are the first ones, unchanged', async () => {
  const { migrations } = await loadShippedSql()
  expect(
    migrations.slice(0, released.length).map((migration) => [migration.name, hashOf(migration)]),
  ).toEqual(released)
})

/** The hash that 0012 had before it was changed. */
const formerRetention = 'c4cfb5339aa05ab4d279530ee18199b519004538e7f3fe111c62e29e8329b048'

test('a database with the first form of 0007, 0008, 0009 and 0012 is upgraded to the same functions as all others', async () => {
  const { url, rows } = await createTestDatabase({ empty: true })
  await migrateTo(url, 14)
  for (const [name, hash] of [
    ['0007_find_and_explain', 'e3d86545d1f0e19a2694085e2aed4406741bb2b392e2b7e73c66386590f12e7a'],
    ['0008_dashboard_views', 'c508abfe0fa99c4fe9b8c4df91d0d6909ca30297dc9935844cba98119bd5a1f2'],
    ['0009_dead_letters', '503317d6b93647aa6a30ab7dbae8942cd69509fd39dc8c00207da1839b26788c'],
    ['0012_retention', formerRetention],
  ] as const)
    await rows('update bus.migrations set hash = $1 where id = $2', [hash, Number(name.slice(0, 4)) + 1])
  const repaired = await functionsOf('0018_same_functions')
  expect(repaired).toHaveLength(7)
  for (const statement of repaired) await rows(statement.replace(/\$body\$\n/, '$body$\n-- the first form\n'))
  await testBus(url).migrate()
  expect(await describeSchema(rows)).toBe(await checkedInSchema())
})

test('another hash at the place of a migration that had a first form is refused', async () => {
  const { url, rows } = await createTestDatabase({ empty: true })
  await migrateTo(url, 14)
  await rows('update bus.migrations set hash = $1 where id = 12', [formerRetention])
  await expect(testBus(url).migrate()).rejects.toMatchObject({ code: 'BUS_SCHEMA_UNKNOWN' })
})

/** The statements of a file. */
async function functionsOf(name: string): Promise<string[]> {
  const text = await readFile(new URL(`../../drizzle/${name}.sql`, import.meta.url), 'utf8')
  return forBossSchema(text, 'pgboss')
    .split('--> statement-breakpoint')
    .map((statement) => statement.trim())
}
