import { expect, test } from 'vitest'
import { createTestDatabase } from '../support/database.ts'
import { openSession } from '../support/session.ts'

const milliseconds = (uuid: unknown): number =>
  Number.parseInt(String(uuid).replaceAll('-', '').slice(0, 12), 16)

test('uuid_v7 gives the version, the variant and the time of the database', async () => {
  const { rows } = await createTestDatabase()
  const ids = await rows(
    `select bus.uuid_v7() as id, extract(epoch from clock_timestamp()) * 1000 as now from generate_series(1, 100)`,
  )
  for (const { id, now } of ids) {
    expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
    expect(Math.abs(milliseconds(id) - Number(now))).toBeLessThan(1000)
  }
})

test('uuid_v7 ascends within a session, in one statement and over many', async () => {
  const session = await openSession(await createTestDatabase())
  const ids = (await session.rows('select bus.uuid_v7() as id from generate_series(1, 10000)')).map(
    ({ id }) => String(id),
  )
  for (let i = 0; i < 200; i += 1)
    ids.push(String((await session.rows('select bus.uuid_v7() as id'))[0]?.['id']))
  expect(new Set(ids).size).toBe(10_200)
  expect(ids).toEqual(ids.toSorted())
})

test('uuid_v7_floor is the lowest id of its millisecond, around the ends of months and in any session', async () => {
  const session = await openSession(await createTestDatabase())
  const settings = [
    [`timezone = 'UTC'`, `datestyle = 'ISO, MDY'`],
    [`timezone = 'Pacific/Auckland'`, `datestyle = 'SQL, DMY'`],
    [`timezone = 'America/St_Johns'`, `datestyle = 'German'`, `intervalstyle = 'sql_standard'`],
  ]
  const moments = [
    '2026-10-31T23:59:59.999Z',
    '2026-11-01T00:00:00.000Z',
    '2026-11-01T00:00:00.001Z',
    '2027-02-28T23:59:59.999Z',
    '2028-02-29T23:59:59.999Z',
    '1970-01-01T00:00:00.000Z',
    '9999-12-31T23:59:59.999Z',
  ]
  for (const list of settings) {
    for (const setting of list) await session.rows(`set ${setting}`)
    for (const moment of moments) {
      const expected = new Date(moment).getTime().toString(16).padStart(12, '0')
      const [row] = await session.rows(
        `select bus.uuid_v7_floor($1) as floor, bus.uuid_v7_floor($1::timestamptz + interval '999 microseconds') as same`,
        [moment],
      )
      expect(row?.['floor']).toBe(`${expected.slice(0, 8)}-${expected.slice(8)}-0000-0000-000000000000`)
      expect(row?.['same']).toBe(row?.['floor'])
    }
  }
})

test('uuid_v7_floor of any moment is below the ids given after it, and above those given before', async () => {
  const session = await openSession(await createTestDatabase())
  const [row] = await session.rows(`
    select bool_and(id >= bus.uuid_v7_floor(before)) as after, bool_and(id < bus.uuid_v7_floor(before + interval '1 second')) as below
    from (select clock_timestamp() as before, bus.uuid_v7() as id from generate_series(1, 5000)) x`)
  expect(row).toEqual({ after: true, below: true })
  const [edges] = await session.rows(
    `select bus.uuid_v7_floor('1969-12-31') as early, bus.uuid_v7_floor('-infinity') as earliest`,
  )
  expect(Object.values(edges ?? {})).toEqual(Array(2).fill('00000000-0000-0000-0000-000000000000'))
})
