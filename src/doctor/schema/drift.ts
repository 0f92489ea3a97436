import { busRoles } from '../../database/role-names.ts'
import { someOf } from '../../health/finding.ts'
import { loadShippedSql } from '../../migrations/shipped-sql.ts'
import { found, sqlRemedy, type DoctorCode, type DoctorFinding } from '../check/finding.ts'
import type { Check, CheckContext } from '../check/check.ts'
import { readSchemaObjects, type ObjectKind, type SchemaObjects } from './catalog.ts'
import { differencesOf, partOf, type Difference } from './differences.ts'
import { loadExpectedObjects } from './expected.ts'
import { isMadeAnew, mendSql } from './mend-sql.ts'
import { readShippedDefinitions, type ShippedDefinitions } from './shipped-definitions.ts'

/** At most so many objects are in the data of one finding. */
const maxObjects = 100

/** What somebody has added to a table of the bus can refuse, change or show its rows. */
const interfering: readonly ObjectKind[] = ['column', 'constraint', 'trigger', 'rule', 'policy']

/** The schema `bus` against what the migrations of this version make. */
export const busDriftCheck: Check = {
  name: 'objects of the schema `bus`',
  needs: 'same bus',
  async run(context) {
    const { differences, shipped } = await readDifferences(context)
    // Row security and what depends on the roles are checks of their own.
    const own = differences.filter(
      (difference) => difference.kind !== 'row security' && !isOfRole(difference),
    )
    const storage = own.filter(({ kind }) => kind === 'storage')
    const shapes = own.filter(({ kind }) => kind !== 'storage')
    const changed = shapes.filter(({ expected }) => expected !== undefined)
    const added = shapes.filter(({ expected }) => expected === undefined)
    const extending = added.filter(({ kind }) => interfering.includes(kind))
    const besides = added.filter(({ kind }) => !interfering.includes(kind))
    const report = (
      code: DoctorCode,
      list: readonly Difference[],
      message: (names: string) => string,
      remedy: (objects: readonly DescribedObject[]) => string,
    ): readonly DoctorFinding[] => {
      if (list.length === 0) return []
      const objects = list.map((difference) => describe(difference, shipped))
      const names = someOf(objects.map(({ kind, name, problem }) => `${kind} ${name} ${problem}`))
      return [
        found(code, message(names), remedy(objects), {
          objects: objects.slice(0, maxObjects),
          count: objects.length,
        }),
      ]
    }
    return [
      ...report(
        'schema-changed',
        changed,
        (names) =>
          `The schema \`bus\` is not as its migrations made it (${names}): statements that rely on it fail, get slow, or let through what they should not`,
        changedRemedy,
      ),
      ...report(
        'schema-extended',
        extending,
        (names) =>
          `Something was added to tables of the bus (${names}): it can refuse or change what is published, show rows to others, or stop the next migration`,
        (objects) =>
          sqlRemedy('Keep what is yours in a schema of its own. As the owner of the schema', sqlOf(objects)),
      ),
      ...report(
        'storage-changed',
        storage,
        (names) =>
          `Storage settings of tables differ from those that were measured (${names}): tables of the outbox may keep dead rows, which makes claims slower`,
        (objects) => sqlRemedy('If it was not on purpose, as the owner of the schema', sqlOf(objects)),
      ),
      ...report(
        'objects-added',
        besides,
        (names) =>
          `The schema \`bus\` holds what the bus does not know (${names}): deliveries are not affected, but a later migration may want the name`,
        () => 'Nothing has to be done if it is yours. Better keep it in a schema of your own.',
      ),
    ]
  },
}

function changedRemedy(objects: readonly DescribedObject[]): string {
  const lost = objects.filter(({ sql }) => sql === undefined).map(({ kind, name }) => `${kind} ${name}`)
  const restore = lost.length === 0 ? '' : ` No statement brings back ${someOf(lost)}: restore a backup.`
  if (lost.length === objects.length) return restore.trim()
  // What is made anew has no privileges.
  const grants = objects.some((object) => isMadeAnew(object, object.sql))
    ? ' Then, for the privileges: npx bossbus migrate.'
    : ''
  return `${sqlRemedy('As the owner of the schema', sqlOf(objects))}${grants}${restore}`
}

interface DescribedObject extends Difference {
  readonly problem: 'is missing' | 'differs' | 'was added'
  readonly sql: string | undefined
}

function describe(difference: Difference, shipped: ShippedDefinitions): DescribedObject {
  const { expected, actual } = difference
  const problem = actual === undefined ? 'is missing' : expected === undefined ? 'was added' : 'differs'
  return { ...difference, problem, sql: mendSql(difference, shipped) }
}

function sqlOf(objects: readonly DescribedObject[]): readonly (string | undefined)[] {
  return objects.map(({ sql }) => sql)
}

/** Policies that bus.migrate() makes where somebody else has enabled row security, so that the roles see the rows. */
const madeByMigrate = ['bus_worker_uses', 'bus_operator_uses']

/** What the roles of the bus were given: they may be missing on purpose. */
function isOfRole({ kind, name, expected }: Difference): boolean {
  if (kind === 'grant') return true
  if (kind !== 'policy') return false
  if (expected === undefined) return madeByMigrate.includes(partOf(name))
  return busRoles.some((role) => expected.includes(` to ${role}`))
}

interface Differences {
  readonly differences: readonly Difference[]
  readonly shipped: ShippedDefinitions
}

/** Two checks ask for them. */
const known = new WeakMap<CheckContext, Promise<Differences>>()

/** What differs from the migrations of this version: read once in an examination. */
export async function readDifferences(context: CheckContext): Promise<Differences> {
  const reading = known.get(context) ?? compare(context)
  known.set(context, reading)
  return reading
}

async function compare({ read, database }: CheckContext): Promise<Differences> {
  const { migrations } = await loadShippedSql()
  const shipped = readShippedDefinitions(migrations, database.bossSchemaName)
  const actual = await readSchemaObjects(read)
  const expected = inThisDatabase(await loadExpectedObjects(), actual, shipped)
  return { differences: differencesOf(expected, actual), shipped }
}

/** Functions name the schema of pg-boss, and one is made differently by older servers: a newer one may have it from them. */
function inThisDatabase(
  objects: SchemaObjects,
  actual: SchemaObjects,
  { inBossSchema, emulatedUuid }: ShippedDefinitions,
): SchemaObjects {
  const functions = Object.entries(objects.function).map(([name, definition]): [string, string] => [
    name,
    inBossSchema(definition),
  ])
  const own = Object.fromEntries(functions)
  const isEmulated = actual.function['uuid_v7()'] === emulatedUuid
  return { ...objects, function: isEmulated ? { ...own, 'uuid_v7()': emulatedUuid } : own }
}
