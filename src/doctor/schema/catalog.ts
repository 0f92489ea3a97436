import type pg from 'pg'

/** The kinds of objects that are compared. Those of the second line belong to a table. */
export const objectKinds = [
  ...(['table', 'view', 'sequence', 'function'] as const),
  ...(['column', 'constraint', 'index', 'trigger', 'rule', 'policy', 'row security', 'storage'] as const),
  'grant',
] as const

export type ObjectKind = (typeof objectKinds)[number]

/** The objects of the schema `bus`: by kind, by name, their definition. */
export type SchemaObjects = Readonly<Record<ObjectKind, Readonly<Record<string, string>>>>

/** An object that belongs to a table has its name behind that of the table. */
export const partSeparator = ' '

interface Row extends pg.QueryResultRow {
  readonly kind: ObjectKind
  readonly name: string
  readonly definition: string
}

/**
 * Reads the objects of the schema `bus`, in a form that is the same on every supported version of the server. Partitions are left out: their
 * names depend on the time, and they have what their table has. Functions and views are told by the hash of their body, functions of PostgreSQL's
 * own syntax by their body.
 *
 * @param read - finds only PostgreSQL's own functions without their schema, so that definitions name the schema of all others
 */
export async function readSchemaObjects(
  read: <R extends pg.QueryResultRow>(statement: string) => Promise<readonly R[]>,
): Promise<SchemaObjects> {
  const objects = Object.fromEntries(objectKinds.map((kind) => [kind, {}])) as Record<
    ObjectKind,
    Record<string, string>
  >
  for (const { kind, name, definition } of await read<Row>(catalogSql)) objects[kind][name] = definition
  return objects
}

const namespace = `(select oid from pg_namespace where nspname = 'bus')`

/** Tables and views, but no partitions. */
const relationsSql = `
  select c.* from pg_class c where c.relnamespace = ${namespace} and c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition`

const part = (table: string, name: string): string => `${table}.relname || '${partSeparator}' || ${name}`

const options = (list: string): string =>
  `coalesce((select string_agg(o, ', ' order by o collate "C") from unnest(${list}) as u (o)), '')`

/** What was granted to whom, but for the owner, as one row for each of them. */
const grantsOf = (target: string, acl: string, owner: string, from: string): string => `
  select 'grant' as kind, ${target} || ' to ' || coalesce(g.rolname, 'public') as name,
    string_agg(distinct lower(a.privilege_type), ', ' order by lower(a.privilege_type)) as definition
  from ${from} cross join lateral aclexplode(${acl}) a left join pg_roles g on g.oid = a.grantee
  where a.grantee <> ${owner} group by 1, 2`

/** From PostgreSQL 16 on, a view of one table names its columns without the table: the names of tables before columns, and blanks, are left out. */
const viewBodySql = String.raw`regexp_replace(pg_get_viewdef(c.oid), '\m(?!bus\.)[a-z_][a-z0-9_]*\.|\s', '', 'g')`

const catalogSql = `
with relations as materialized (${relationsSql}), objects as (
  select case when c.relkind in ('r', 'p', 'f') then 'table' else 'view' end as kind, c.relname::text as name,
    case c.relkind when 'r' then 'table' when 'p' then 'table partitioned by ' || pg_get_partkeydef(c.oid) when 'v' then 'view' when 'm' then 'materialized view' else 'foreign table' end
      || case c.relpersistence when 'u' then ' unlogged' else '' end
      || case when c.relkind in ('v', 'm') then ' (' || (
           select string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' order by a.attnum)
           from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) || ')'
           || case when c.reloptions is null then '' else ' with (' || ${options('c.reloptions')} || ')' end || ' body ' || md5(${viewBodySql})
         else '' end as definition
  from relations c
  union all
  select 'sequence', c.relname, format_type(s.seqtypid, null) || ' start ' || s.seqstart || ' increment ' || s.seqincrement || ' maximum ' || s.seqmax
    || ' cache ' || s.seqcache || case when s.seqcycle then ' cycle' else '' end
  from pg_sequence s join pg_class c on c.oid = s.seqrelid where c.relnamespace = ${namespace}
  union all
  select 'function', p.proname || '(' || oidvectortypes(p.proargtypes) || ')',
    case p.prokind when 'a' then 'aggregate' when 'p' then 'procedure' else 'function' end
      || ' (' || pg_get_function_arguments(p.oid) || ') returns ' || coalesce(pg_get_function_result(p.oid), 'nothing') || ' ' || l.lanname
      || case p.provolatile when 'i' then ' immutable' when 's' then ' stable' else ' volatile' end
      || case when p.prosecdef then ' security definer' else '' end || case when p.proisstrict then ' strict' else '' end
      || case p.proparallel when 's' then ' parallel safe' when 'r' then ' parallel restricted' else '' end
      || case when p.proconfig is null then '' else ' set ' || ${options('p.proconfig')} end
      || case when p.prokind = 'a' then ' with ' || a.aggtransfn || ' ' || coalesce(a.agginitval, 'null')
           when p.prosqlbody is null then ' body ' || md5(p.prosrc) else ' ' || pg_get_function_sqlbody(p.oid) end
  from pg_proc p join pg_language l on l.oid = p.prolang left join pg_aggregate a on a.aggfnoid = p.oid where p.pronamespace = ${namespace}
  union all
  select 'column', ${part('c', 'a.attname')}, format_type(a.atttypid, a.atttypmod) || case when a.attnotnull then ' not null' else '' end
    || case a.attidentity when 'a' then ' generated always as identity' when 'd' then ' generated by default as identity' else '' end
    || case when a.attgenerated = '' then coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '') else ' generated always as (' || pg_get_expr(d.adbin, d.adrelid) || ')' end
  from relations c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where c.relkind in ('r', 'p', 'f')
  union all
  -- 'n' is NOT NULL, which PostgreSQL 18 lists and older ones do not: it is shown with the column.
  select 'constraint', ${part('c', 'x.conname')}, pg_get_constraintdef(x.oid)
  from relations c join pg_constraint x on x.conrelid = c.oid and x.contype not in ('n', 't')
  union all
  select 'index', ${part('c', 'i.relname')}, pg_get_indexdef(x.indexrelid)
  from relations c join pg_index x on x.indrelid = c.oid join pg_class i on i.oid = x.indexrelid
  where not exists (select from pg_constraint k where k.conindid = x.indexrelid and k.conrelid = c.oid)
  union all
  select 'trigger', ${part('c', 't.tgname')}, pg_get_triggerdef(t.oid)
    || case t.tgenabled when 'O' then '' when 'D' then ' DISABLED' when 'R' then ' REPLICA' else ' ALWAYS' end
  from relations c join pg_trigger t on t.tgrelid = c.oid and not t.tgisinternal
  union all
  select 'rule', ${part('c', 'r.rulename')}, pg_get_ruledef(r.oid) from relations c join pg_rewrite r on r.ev_class = c.oid and r.rulename <> '_RETURN'
  union all
  select 'policy', ${part('c', 'p.polname')}, case when p.polpermissive then '' else 'as restrictive ' end
    || 'for ' || case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete' else 'all' end
    || ' to ' || (select string_agg(coalesce(r.rolname, 'public'), ', ' order by r.rolname) from unnest(p.polroles) as u (id) left join pg_roles r on r.oid = u.id)
    || coalesce(' using (' || pg_get_expr(p.polqual, p.polrelid) || ')', '') || coalesce(' with check (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')', '')
  from relations c join pg_policy p on p.polrelid = c.oid
  union all
  select 'row security', c.relname, 'enabled' from relations c where c.relrowsecurity
  union all
  select 'storage', c.relname, ${options('c.reloptions')} from relations c where c.relkind in ('r', 'p') and c.reloptions is not null
  union all (${grantsOf(`case c.relkind when 'S' then 'sequence' else 'table' end || ' bus.' || c.relname`, 'c.relacl', 'c.relowner', `(select * from relations union all select * from pg_class s where s.relnamespace = ${namespace} and s.relkind = 'S') c`)})
  union all (${grantsOf(`'function bus.' || p.proname || '(' || oidvectortypes(p.proargtypes) || ')'`, `coalesce(p.proacl, acldefault('f', p.proowner))`, 'p.proowner', `(select * from pg_proc f where f.pronamespace = ${namespace}) p`)})
  union all (${grantsOf(`'schema ' || n.nspname`, 'n.nspacl', 'n.nspowner', `(select * from pg_namespace s where s.nspname = 'bus') n`)})
)
select kind, name, definition from objects order by kind collate "C", name collate "C"`
