-- What the log takes from anybody, plain SQL included, each for a reason: an index refuses longer keys with an error that
-- nobody understands, types are matched against patterns by every relay, and a handler is promised metadata by name.
-- Rows that are there stay as they are (`not valid`): nothing is scanned, the lock is held for a moment.
ALTER TABLE "bus"."events" ADD CONSTRAINT "events_text_lengths" CHECK (
  char_length("tenant_id") between 1 and 255 and char_length("type") between 1 and 255
  and char_length("source") between 1 and 255 and char_length("subject") <= 1024
  and char_length("event_id") between 1 and 255 and char_length("idempotency_key") between 1 and 255
  and char_length("correlation_id") <= 255 and char_length("ordering_key") <= 255
) not valid;--> statement-breakpoint
ALTER TABLE "bus"."events" ADD CONSTRAINT "events_metadata_object" CHECK (
  jsonb_typeof("metadata") = 'object' and pg_column_size("metadata") <= 65536
) not valid;--> statement-breakpoint
-- As text: numbers such as 1e100000 are short in the table, and as long as they say for whoever reads them. Ten thousand of
-- them are a payload that no statement can read, and a relay that has to would never get past it.
ALTER TABLE "bus"."events" ADD CONSTRAINT "events_payload_length" CHECK (
  (pg_column_size("payload") <= 8000 and pg_column_compression("payload") is null)
  or octet_length("payload"::text) <= 67108864
) not valid;
--> statement-breakpoint
-- Here too, because a key is claimed before its event is stored.
ALTER TABLE "bus"."event_keys" ADD CONSTRAINT "event_keys_text_lengths" CHECK (
  char_length("tenant_id") between 1 and 255 and char_length("key") between 1 and 255
) not valid;
--> statement-breakpoint

-- Where there is nothing yet, they hold for everything, as they do in partitions that are created later.
do $body$
begin
  if not exists (select from bus.events) and not exists (select from bus.event_keys) then
    alter table bus.events validate constraint events_text_lengths;
    alter table bus.events validate constraint events_metadata_object;
    alter table bus.events validate constraint events_payload_length;
    alter table bus.event_keys validate constraint event_keys_text_lengths;
  end if;
end
$body$;
--> statement-breakpoint

-- The events, out of some, whose payload fulfils a predicate. What the predicate cannot judge, it does not fulfil: the
-- operator answers null to most errors, but raises some, such as for a date that is compared with a time that has a zone.
-- Then each payload is judged by itself, so that one of them does not stop the relay for all.
create function bus.fulfilling_events(event_ids uuid[], predicate jsonpath) returns uuid[] language plpgsql stable as $body$
declare
  fulfilling uuid[];
  event record;
begin
  return array(select e.id from bus.events e where e.id = any (event_ids) and e.payload @@ predicate);
exception when data_exception or feature_not_supported or undefined_object or program_limit_exceeded then
  for event in select e.id, e.payload from bus.events e where e.id = any (event_ids) loop
    begin
      if event.payload @@ predicate then
        fulfilling := fulfilling || event.id;
      end if;
    exception when data_exception or feature_not_supported or undefined_object or program_limit_exceeded then
      -- Not fulfilled.
      null;
    end;
  end loop;
  return coalesce(fulfilling, '{}');
end
$body$ set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off;
--> statement-breakpoint
revoke execute on function bus.fulfilling_events(uuid[], jsonpath) from public;
