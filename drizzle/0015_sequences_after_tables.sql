-- As before, but the value of a sequence is read after its table. The other way round, what was published between the two
-- looked like a sequence that is behind.
create or replace function bus.repair_sequences() returns table (name text, was bigint, now bigint) language plpgsql security definer as $body$
#variable_conflict use_column
declare
  owned record;
  next_value bigint;
  highest bigint;
  room bigint;
begin
  perform pg_advisory_xact_lock(1651864320, 7);
  for owned in
    select s.oid::regclass as sequence, d.refobjid::regclass as parent, a.attname as attribute, q.seqmax
    from pg_class s
    join pg_sequence q on q.seqrelid = s.oid
    join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = s.oid and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i')
    join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
    where s.relnamespace = 'bus'::regnamespace and s.relkind = 'S'
    order by 1
  loop
    if owned.parent = 'bus.outbox'::regclass then
      select greatest(
        (select max(o.position) from bus.outbox o where o.position < 0) + 4611686018427387904,
        (select max(o.position) from bus.outbox o where o.position between 0 and 2305843009213693951),
        (select max(o.position) from bus.outbox o where o.position >= 2305843009213693952 and o.position < 4611686018427387904) - 2305843009213693952,
        (select max(o.position) from bus.outbox o where o.position >= 4611686018427387904) - 4611686018427387904)
      into highest;
    elsif owned.parent = 'bus.ordered_events'::regclass then
      select greatest((select max(e.seq) from bus.ordered_events e), (select max(greatest(k.done_seq, k.singly_through_seq)) from bus.ordered_keys k))
      into highest;
    elsif owned.parent = 'bus.subscriptions'::regclass and owned.attribute = 'id' then
      select greatest(
        (select max(s.id) from bus.subscriptions s), (select max(d.subscription_id) from bus.deliveries d), (select max(k.subscription_id) from bus.ordered_keys k))
      into highest;
    else
      execute format('select max(%I) from %s', owned.attribute, owned.parent) into highest;
    end if;
    -- Read behind its table: whoever publishes meanwhile has taken its values from it before.
    execute format('select case when is_called then last_value + 1 else last_value end from %s', owned.sequence) into next_value;
    continue when highest is null or highest < next_value;
    room := case when owned.seqmax > 2147483647 then 1000000 else 100 end;
    perform setval(owned.sequence, least(highest + room, owned.seqmax));
    name := owned.sequence::text;
    was := next_value;
    now := least(highest + room, owned.seqmax);
    return next;
  end loop;
end
$body$ set search_path = pg_catalog, pg_temp;
