import { deadLetterSchemas } from './dead-letter-schemas.ts'
import { eventSchemas } from './event-schemas.ts'
import { explainSchemas } from './explain-schemas.ts'
import { healthSchemas } from './health-schemas.ts'
import { operationSchemas } from './operation-schemas.ts'
import { quarantineSchemas } from './quarantine-schemas.ts'
import { querySchemas } from './query-schemas.ts'
import { retentionSchemas } from './retention-schemas.ts'
import type { Json, Schema } from './schema.ts'
import { subscriptionSchemas } from './subscription-schemas.ts'

const named: Readonly<Record<string, Schema>> = {
  ...eventSchemas,
  ...explainSchemas,
  ...deadLetterSchemas,
  ...quarantineSchemas,
  ...operationSchemas,
  ...subscriptionSchemas,
  ...healthSchemas,
  ...querySchemas,
  ...retentionSchemas,
}

/** The schemas that answers refer to by name. */
export const componentSchemas: Readonly<Record<string, Json>> = Object.fromEntries(
  Object.entries(named).map(([name, { json }]) => [name, json]),
)
