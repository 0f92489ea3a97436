-- As before, but a field that it does not know is refused: a misspelt `eventId` would lose the deduplication in silence.
create or replace function bus.publish(new_events jsonb) returns table (ordinal bigint, id uuid, duplicate boolean) language plpgsql as $body$
#variable_conflict use_column
declare
  unknown_field text := (
    select k.key from jsonb_array_elements(new_events) as e (event)
    cross join lateral jsonb_object_keys(case jsonb_typeof(e.event) when 'object' then e.event else '{}' end) as k (key)
    where k.key not in (
      'tenantId', 'type', 'source', 'subject', 'schemaVersion', 'payload', 'eventId', 'idempotencyKey', 'correlationId',
      'causationId', 'orderingKey', 'metadata', 'availableAt', 'expiresAt')
    limit 1);
begin
  if unknown_field is not null then
    raise exception 'Unknown field % of an event', quote_ident(left(unknown_field, 80)) using errcode = '22023';
  end if;
  return query
  select r.ordinal, left(r.reply, 36)::uuid, length(r.reply) > 36
  from string_to_table((
    select bus.store_events(
      string_agg(coalesce((new_events -> (e.ordinal - 1)::int -> 'payload')::text, ''), E'\n' order by e.ordinal),
      array_agg(e.tenant_id order by e.ordinal), array_agg(e.type order by e.ordinal), array_agg(e.source order by e.ordinal),
      array_agg(e.subject order by e.ordinal), array_agg(e.schema_version order by e.ordinal),
      case when count(e.event_id) > 0 then array_agg(e.event_id order by e.ordinal) end,
      case when count(e.idempotency_key) > 0 then array_agg(e.idempotency_key order by e.ordinal) end,
      array_agg(e.correlation_id order by e.ordinal), array_agg(e.causation_id order by e.ordinal),
      array_agg(e.ordering_key order by e.ordinal), array_agg(e.metadata order by e.ordinal), array_agg(e.available_at order by e.ordinal),
      array_agg(e.expires_at order by e.ordinal))
    from rows from (
      jsonb_to_recordset(new_events) as (
        "tenantId" text, type text, source text, subject text, "schemaVersion" smallint,
        "eventId" text, "idempotencyKey" text, "correlationId" text, "causationId" uuid, "orderingKey" text,
        metadata jsonb, "availableAt" timestamptz, "expiresAt" timestamptz)
    ) with ordinality as e (
      tenant_id, type, source, subject, schema_version, event_id, idempotency_key,
      correlation_id, causation_id, ordering_key, metadata, available_at, expires_at, ordinal)
    having count(*) > 0
  ), ',') with ordinality as r (reply, ordinal);
end
$body$ set search_path = pg_catalog, pg_temp;
