-- A rule for a role that is not there would bind nobody, and whoever has no rule is not bound: a misspelt name is refused.
create function bus.check_source_rule() returns trigger language plpgsql as $body$
begin
  if not exists (select from pg_roles r where r.rolname = new.role) then
    raise exception 'There is no role %: a rule for it would bind nobody', quote_ident(new.role) using errcode = '42704';
  end if;
  return new;
end
$body$ set search_path = pg_catalog, pg_temp;
--> statement-breakpoint
revoke execute on function bus.check_source_rule() from public;
--> statement-breakpoint
create trigger check_source_rule before insert or update on bus.source_rules for each row execute function bus.check_source_rule();
