-- Erases some events of the tenant and subject that an erasure names, unless somebody else has meanwhile, and counts them.
-- As the owner of the log, which nobody else may update: it can do nothing else than this. Locks the rows in the order of
-- their ids, so that two calls wait for each other and never deadlock.
create function bus.erase_events(erasure_id uuid, event_ids uuid[]) returns bigint language plpgsql security definer as $body$
declare
  erased_count bigint;
begin
  with found as (
    select e.id from bus.events e
    join bus.erasures r on r.tenant_id = e.tenant_id and r.subject = e.subject
    where r.id = erasure_id and r.finished_at is null and e.id = any (event_ids) and e.erased_at is null
    order by e.id for update of e
  )
  update bus.events e set payload = 'null', metadata = '{}', erased_at = clock_timestamp()
  from found f where e.id = f.id and e.id = any (event_ids);
  get diagnostics erased_count = row_count;
  update bus.erasures r set event_count = r.event_count + erased_count where r.id = erasure_id;
  return erased_count;
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint
revoke execute on function bus.erase_events(uuid, uuid[]) from public;
