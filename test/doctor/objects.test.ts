import { expect, test } from 'vitest'
import { createDatabase } from '../../src/database/database.ts'
import { createRead } from '../../src/doctor/check/limited-database.ts'
import { readSchemaObjects } from '../../src/doctor/schema/catalog.ts'
import { createTestDatabase } from '../support/database.ts'
import { silentLogger } from '../support/doctor.ts'

test('drizzle/objects.json lists what the migrations make', async () => {
  const { url } = await createTestDatabase()
  const database = createDatabase(url, silentLogger)
  const objects = await readSchemaObjects(createRead(database))
  database.destroy()
  // After a change on purpose: npm run test:all -- test/doctor/objects.test.ts -u
  await expect(`${JSON.stringify(objects, null, 2)}\n`).toMatchFileSnapshot('../../drizzle/objects.json')
})
