// @module-tag slow
import { randomUUID } from 'node:crypto'
import { expect, inject, onTestFinished, test } from 'vitest'
import { asAdmin } from '../../src/testing/databases.ts'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { goodDelivery, runDeliverySuite } from '../support/delivery-suite.ts'
import { isFullForm } from '../support/form.ts'

type Setting = Readonly<Record<string, string>>

/** Settings that a database or a role may have, each with a value that is not the usual one. Some come together. */
const settings: readonly Setting[] = [
  { datestyle: 'SQL, DMY' },
  { datestyle: 'German' },
  { datestyle: 'Postgres, MDY' },
  { intervalstyle: 'sql_standard' },
  { intervalstyle: 'iso_8601' },
  { intervalstyle: 'postgres_verbose' },
  { timezone: 'Asia/Kathmandu' },
  { timezone: 'America/St_Johns', datestyle: 'SQL, MDY' },
  { standard_conforming_strings: 'off', escape_string_warning: 'off' },
  { standard_conforming_strings: 'off', backslash_quote: 'off' },
  { array_nulls: 'off' },
  { transform_null_equals: 'on' },
  { quote_all_identifiers: 'on' },
  { bytea_output: 'escape' },
  { extra_float_digits: '-15' },
  { extra_float_digits: '3' },
  { search_path: '' },
  { search_path: 'hostile, public, pg_catalog' },
  { search_path: 'hostile, public' },
  { search_path: 'public, pg_catalog' },
  { default_transaction_isolation: 'serializable' },
  { default_transaction_isolation: 'repeatable read' },
  { default_transaction_read_only: 'on' },
  { default_transaction_isolation: 'serializable', default_transaction_deferrable: 'on' },
  { jit: 'on', jit_above_cost: '0' },
  { statement_timeout: '3s' },
  { lock_timeout: '500ms' },
  { idle_in_transaction_session_timeout: '1s' },
  { idle_session_timeout: '200ms' },
  { transaction_timeout: '3s' },
  { row_security: 'off' },
  { synchronous_commit: 'off' },
  { synchronous_commit: 'remote_apply' },
  { enable_seqscan: 'off' },
  { enable_indexscan: 'off', enable_indexonlyscan: 'off' },
  { enable_bitmapscan: 'off' },
  { enable_nestloop: 'off' },
  { enable_hashjoin: 'off', enable_mergejoin: 'off' },
  { enable_sort: 'off', enable_material: 'off' },
  { enable_partition_pruning: 'off' },
  { enable_partitionwise_join: 'on', enable_partitionwise_aggregate: 'on' },
  { plan_cache_mode: 'force_generic_plan' },
  { plan_cache_mode: 'force_custom_plan' },
  { join_collapse_limit: '1', from_collapse_limit: '1' },
  { geqo_threshold: '2' },
  { constraint_exclusion: 'on' },
  { random_page_cost: '1000' },
  { work_mem: '64kB' },
  { debug_parallel_query: 'on' },
  { debug_parallel_query: 'regress' },
  { parallel_setup_cost: '0', parallel_tuple_cost: '0', min_parallel_table_scan_size: '0' },
  { client_min_messages: 'log' },
  { client_min_messages: 'error' },
  { log_min_messages: 'fatal' },
  { lc_messages: 'C' },
  { lc_numeric: 'C', lc_monetary: 'C', lc_time: 'C' },
  { client_encoding: 'LATIN1' },
  { default_text_search_config: 'pg_catalog.german' },
  { default_toast_compression: 'pglz' },
  { default_table_access_method: 'heap' },
  { check_function_bodies: 'off' },
  { track_activities: 'off' },
  { track_functions: 'all' },
  { stats_fetch_consistency: 'none' },
  { 'plpgsql.variable_conflict': 'use_column' },
  { 'plpgsql.variable_conflict': 'use_variable' },
  { 'plpgsql.extra_errors': 'all' },
  { restrict_nonsystem_relation_kind: 'view, foreign-table' },
  { createrole_self_grant: 'set, inherit' },
  { xmloption: 'document', xmlbinary: 'hex' },
  { deadlock_timeout: '10ms' },
  { 'bus.tenant_id': 'acme' },
  { application_name: 'mine' },
  { role: 'postgres' },
]

/** Found before those of PostgreSQL where the path says so, or because they fit better. Each gives something else. */
const hostileSchema = `
  create schema hostile;
  create function hostile.now() returns timestamptz language sql as $$ select timestamptz '1990-01-01' $$;
  create function hostile.clock_timestamp() returns timestamptz language sql as $$ select timestamptz '1990-01-01' $$;
  create function hostile.transaction_timestamp() returns timestamptz language sql as $$ select timestamptz '1990-01-01' $$;
  create function hostile.gen_random_uuid() returns uuid language sql as $$ select null::uuid $$;
  create function hostile.extract(text, timestamptz) returns numeric language sql as $$ select 0::numeric $$;
  create function hostile.jsonb_array_elements_text(jsonb) returns setof text language sql as $$ select 'hostile'::text $$;
  create function hostile.unnest(uuid[]) returns setof uuid language sql as $$ select null::uuid where false $$;
  create function hostile.starts_with(name, text) returns boolean language sql as $$ select true $$;
  create function hostile.pg_notify(text, text) returns void language sql as $$ select $$;
  create function hostile.set_config(text, text, boolean) returns text language sql as $$ select 'hostile'::text $$;
  create function hostile.pg_try_advisory_xact_lock(int, int) returns boolean language sql as $$ select false $$;
  create function hostile.pg_backend_pid() returns int language sql as $$ select 0 $$;
  create function hostile.greatest_of(numeric) returns numeric language sql as $$ select $1 $$;
  create domain hostile.text as pg_catalog.text check (value <> 'one');
  create domain hostile.uuid as pg_catalog.uuid check (value is null);
  create table hostile.events (id int);
  grant usage on schema hostile to public`

const titleOf = (setting: Setting): string =>
  Object.entries(setting)
    .map(([name, value]) => `${name} = '${value}'`)
    .join(' and ')

/** Several that do not contradict each other at once: four times as few runs. In the full form each is tried alone. */
function together(all: readonly Setting[]): Setting[] {
  const groups: Setting[] = []
  for (const setting of all) {
    const fits = groups.findIndex(
      (group) =>
        Object.keys(group).length < 6 && Object.keys(setting).every((name) => !Object.hasOwn(group, name)),
    )
    if (fits === -1) groups.push(setting)
    else groups[fits] = { ...groups[fits], ...setting }
  }
  return groups
}

const tried = isFullForm ? settings : together(settings)
const names = Object.fromEntries(tried.map((setting, index) => [titleOf(setting), { setting, index }]))
/** Side by side: few enough for a server with a hundred connections. */
const chunkSize = 5
const chunks = Array.from({ length: Math.ceil(tried.length / chunkSize) }, (_, chunk) =>
  Object.keys(names).slice(chunk * chunkSize, (chunk + 1) * chunkSize),
)

test.each(chunks)(
  'whatever is set for the database or the role, all is delivered: %s, %s, %s, %s, %s',
  async (...titles) => {
    const results = await Promise.all(
      titles
        .filter((title) => typeof title === 'string')
        .map(async (title) => {
          const { setting = {}, index = 0 } = names[title] ?? {}
          const database = await createTestDatabase()
          const known = await knownSettings(database, setting)
          await database.rows(hostileSchema)
          const url = await withSettings(database, known, index % 2 === 0 ? 'role' : 'database')
          const publisher = index % 4 < 2 ? 'node-postgres' : 'postgres.js'
          const result: unknown = await runDeliverySuite(database, url, { publisher }).catch(
            (error: unknown) => `${String(error)} ${String((error as Error).cause)}`,
          )
          return [title, result] as const
        }),
    )
    expect(Object.fromEntries(results)).toEqual(
      Object.fromEntries(results.map(([title]) => [title, goodDelivery])),
    )
  },
)

/** A role and a database with settings, for new connections. */
async function withSettings(
  database: TestDatabase,
  setting: readonly (readonly [string, string])[],
  place: 'role' | 'database',
): Promise<string> {
  const url = new URL(database.url)
  const name = url.pathname.slice(1)
  const role = `set_${randomUUID().slice(0, 8)}`
  await asAdmin(inject('serverUrl'), async (admin) => {
    await admin.query(`create role ${role} login superuser password 'test'`)
    for (const [setting_name, value] of setting) {
      // A list of names is no text.
      const given = setting_name === 'search_path' ? value || "''" : `'${value}'`
      const target = place === 'role' ? `role ${role} in database ${name}` : `database ${name}`
      await admin.query(`alter ${target} set ${setting_name} = ${given}`)
    }
  })
  onTestFinished(async () =>
    asAdmin(inject('serverUrl'), async (admin) => {
      await admin.query(`drop database if exists ${name} with (force)`)
      await admin.query(`drop role ${role}`)
    }),
  )
  url.username = role
  url.password = 'test'
  return url.toString()
}

/** Those that this server knows. */
async function knownSettings(
  { rows }: TestDatabase,
  setting: Readonly<Record<string, string>>,
): Promise<readonly (readonly [string, string])[]> {
  const found = await rows('select lower(name) as name from pg_settings')
  const known = new Set(found.map(({ name }) => name))
  return Object.entries(setting).filter(([name]) => name.includes('.') || name === 'role' || known.has(name))
}
