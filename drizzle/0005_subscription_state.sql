ALTER TABLE "bus"."subscriptions" ADD COLUMN "paused_by" text;--> statement-breakpoint
ALTER TABLE "bus"."subscriptions" ADD COLUMN "pause_reason" text;--> statement-breakpoint
ALTER TABLE "bus"."subscriptions" ADD COLUMN "circuit_opened_at" timestamp (6) with time zone;--> statement-breakpoint
ALTER TABLE "bus"."subscriptions" ADD COLUMN "circuit_reason" text;--> statement-breakpoint
ALTER TABLE "bus"."subscriptions" ADD COLUMN "circuit_probe_at" timestamp (6) with time zone;--> statement-breakpoint
ALTER TABLE "bus"."subscriptions" ADD COLUMN "circuit_probe_count" integer DEFAULT 0 NOT NULL;