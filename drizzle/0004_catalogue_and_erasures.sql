CREATE TABLE "bus"."catalogue" (
	"type" text NOT NULL,
	"version" smallint NOT NULL,
	"service" text NOT NULL,
	"schema" jsonb,
	"schema_origin" text NOT NULL,
	"sources" text[],
	"upcasts_from" smallint,
	"redact" text[],
	"first_seen_at" timestamp (6) with time zone DEFAULT clock_timestamp() NOT NULL,
	"changed_at" timestamp (6) with time zone DEFAULT clock_timestamp() NOT NULL,
	"last_seen_at" timestamp (6) with time zone DEFAULT clock_timestamp() NOT NULL,
	CONSTRAINT "catalogue_type_version_service_pk" PRIMARY KEY("type","version","service")
);
--> statement-breakpoint
CREATE TABLE "bus"."erasures" (
	"id" uuid PRIMARY KEY DEFAULT bus.uuid_v7() NOT NULL,
	"tenant_id" text NOT NULL,
	"subject" text NOT NULL,
	"erased_by" text NOT NULL,
	"reason" text,
	"event_count" bigint DEFAULT 0 NOT NULL,
	"failure_count" bigint DEFAULT 0 NOT NULL,
	"started_at" timestamp (6) with time zone DEFAULT clock_timestamp() NOT NULL,
	"finished_at" timestamp (6) with time zone
);
--> statement-breakpoint
ALTER TABLE "bus"."erasures" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
ALTER TABLE "bus"."deliveries" ADD COLUMN "erased" boolean;--> statement-breakpoint
ALTER TABLE "bus"."events" ADD COLUMN "erased_at" timestamp (6) with time zone;--> statement-breakpoint
CREATE INDEX "erasures_tenant_id_idx" ON "bus"."erasures" USING btree ("tenant_id","id");--> statement-breakpoint
CREATE INDEX "events_subject_idx" ON "bus"."events" USING btree (hashtextextended("subject", hashtextextended("tenant_id", 0))) WHERE "bus"."events"."subject" is not null;--> statement-breakpoint
CREATE POLICY "tenant_reads" ON "bus"."erasures" AS PERMISSIVE FOR SELECT TO public USING (tenant_id = (select bus.current_tenant()));
--> statement-breakpoint

-- A record of failed attempts, as pg-boss keeps it, without what their errors said, which may quote the event: number,
-- time, name and code stay. Anything else is given back as it is.
create function bus.scrub_failures(record jsonb) returns jsonb language sql immutable strict parallel safe
return case when jsonb_typeof(record -> 'failures') = 'array' then jsonb_set(record, '{failures}', (
  select coalesce(jsonb_agg((f.failure - 'stack') || '{"message": "erased"}' order by f.ordinal), '[]')
  from jsonb_array_elements(record -> 'failures') with ordinality as f (failure, ordinal)
)) else record end;
--> statement-breakpoint
revoke execute on function bus.scrub_failures(jsonb) from public;
