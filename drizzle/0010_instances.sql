CREATE TABLE "bus"."declarations" (
	"id" integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "bus"."declarations_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 2147483647 START WITH 1 CACHE 1),
	"subscription_id" integer NOT NULL,
	"hash" text NOT NULL,
	"patterns" text[] NOT NULL,
	"where" text,
	"options" jsonb NOT NULL,
	"declared_at" timestamp (6) with time zone DEFAULT now() NOT NULL,
	"retired_at" timestamp (6) with time zone,
	CONSTRAINT "declarations_variant_unique" UNIQUE("subscription_id","hash")
);
--> statement-breakpoint
CREATE TABLE "bus"."instances" (
	"id" uuid PRIMARY KEY NOT NULL,
	"service" text NOT NULL,
	"host" text NOT NULL,
	"pid" integer NOT NULL,
	"version" text NOT NULL,
	"started_at" timestamp (6) with time zone DEFAULT now() NOT NULL,
	"seen_at" timestamp (6) with time zone NOT NULL,
	"relay" text NOT NULL,
	"in_hand_count" integer DEFAULT 0 NOT NULL,
	"declarations" integer[] NOT NULL
);
--> statement-breakpoint
ALTER TABLE "bus"."subscriptions" ADD COLUMN "left_since" timestamp (6) with time zone;
--> statement-breakpoint

-- What was registered before goes on to count until its code has declared itself.
insert into bus.declarations (subscription_id, hash, patterns, "where", options)
select s.id, 'registered before', s.patterns, s."where", s.options from bus.subscriptions s order by s.id;
