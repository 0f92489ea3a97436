-- As before, but with `session_replication_role = replica`, under which the trigger of the log does not fire, it raises: what is
-- published so would never be delivered. Whoever copies rows, as a restore does, inserts them into the tables and calls nothing of this.
create or replace function bus.name_transaction(proof text) returns text language plpgsql as $body$
declare
  current_proof text := pg_backend_pid()::text || '/' || (extract(epoch from transaction_timestamp()) * 1000000)::bigint::text;
begin
  if proof <> current_proof then
    raise exception 'not in the transaction that this handle stands for' using errcode = 'BUS01';
  end if;
  if current_setting('session_replication_role') = 'replica' then
    raise exception 'session_replication_role is replica' using errcode = 'BUS03';
  end if;
  return current_proof;
end
$body$ set search_path = pg_catalog, pg_temp;
