import type { FindingCode, FindingSeverity } from '../../health/finding.ts'

/** Every code of a finding that the doctor alone makes. Stable: a code is never renamed or reused. Explained in docs/guide/doctor.md. */
export const doctorCodes = [
  'server-too-old',
  'server-end-of-life',
  'encoding-not-utf8',
  'collation-changed',
  'setting-unsupported',
  'read-only-server',
  'read-only-by-default',
  'fsync-off',
  'full-page-writes-off',
  'synchronous-commit-off',
  'synchronous-standby-missing',
  'autovacuum-off',
  'time-limits-behind-pooler',
  'plans-restricted',
  'connections-scarce',
  'locks-scarce',
  'shared-buffers-small',
  'wraparound-near',
  'login-without-privileges',
  'login-unrestricted',
  'roles-missing',
  'tenant-reads-impossible',
  'privileges-missing',
  'privileges-added',
  'row-security-off',
  'row-security-bypassed',
  'rows-hidden',
  'sessions-hidden',
  'schema-missing',
  'schema-outdated',
  'schema-too-new',
  'schema-unknown',
  'schema-changed',
  'schema-extended',
  'storage-changed',
  'objects-added',
  'boss-schema-mismatch',
  'boss-schema-missing',
  'boss-schema-outdated',
  'boss-schema-unsupported',
  'boss-schema-changed',
  'boss-builds-unfinished',
  'index-invalid',
  'index-bloated',
  'pooler-in-transaction-mode',
  'prepared-statements-lost',
  'round-trip-slow',
  'not-encrypted',
  'dead-rows',
  'sequences-behind',
  'registry-incomplete',
  'queue-missing',
  'queue-orphaned',
  'declaration-abandoned',
  'dead-letters-waiting',
  'operation-stalled',
  'erasure-unfinished',
  'archive-rewrite-overdue',
  'retention-failing',
  'retention-overdue',
  'not-permitted',
  'not-checked',
] as const

export type DoctorCode = (typeof doctorCodes)[number]

/** Something that is not as it should be. */
export interface DoctorFinding {
  /** One of {@link doctorCodes}, or of `bus.health()`. */
  readonly code: DoctorCode | FindingCode
  /** `error`: events are not delivered, are lost or seen by others, or will be. `warning`: a person should look. `info`: it may be intended. */
  readonly severity: FindingSeverity
  /** What was found, and what it means for deliveries. */
  readonly message: string
  /** What mends it: a command or SQL where there is one. */
  readonly remedy: string
  /** The figures and names. */
  readonly data: Readonly<Record<string, unknown>>
}

const severities: Readonly<Record<DoctorCode, FindingSeverity>> = {
  'server-too-old': 'error',
  'server-end-of-life': 'warning',
  'encoding-not-utf8': 'error',
  'collation-changed': 'warning',
  'setting-unsupported': 'error',
  'read-only-server': 'error',
  'read-only-by-default': 'warning',
  'fsync-off': 'error',
  'full-page-writes-off': 'error',
  'synchronous-commit-off': 'warning',
  'synchronous-standby-missing': 'error',
  'autovacuum-off': 'warning',
  'time-limits-behind-pooler': 'warning',
  'plans-restricted': 'warning',
  'connections-scarce': 'warning',
  'locks-scarce': 'warning',
  'shared-buffers-small': 'info',
  'wraparound-near': 'error',
  'login-without-privileges': 'error',
  'login-unrestricted': 'warning',
  'roles-missing': 'warning',
  'tenant-reads-impossible': 'info',
  'privileges-missing': 'warning',
  'privileges-added': 'warning',
  'row-security-off': 'error',
  'row-security-bypassed': 'error',
  'rows-hidden': 'error',
  'sessions-hidden': 'info',
  'schema-missing': 'error',
  'schema-outdated': 'error',
  'schema-too-new': 'error',
  'schema-unknown': 'error',
  'schema-changed': 'error',
  'schema-extended': 'warning',
  'storage-changed': 'info',
  'objects-added': 'info',
  'boss-schema-mismatch': 'error',
  'boss-schema-missing': 'error',
  'boss-schema-outdated': 'error',
  'boss-schema-unsupported': 'error',
  'boss-schema-changed': 'error',
  'boss-builds-unfinished': 'warning',
  'index-invalid': 'warning',
  'index-bloated': 'info',
  'pooler-in-transaction-mode': 'warning',
  'prepared-statements-lost': 'error',
  'round-trip-slow': 'warning',
  'not-encrypted': 'info',
  'dead-rows': 'warning',
  'sequences-behind': 'error',
  'registry-incomplete': 'error',
  'queue-missing': 'error',
  'queue-orphaned': 'warning',
  'declaration-abandoned': 'info',
  'dead-letters-waiting': 'info',
  'operation-stalled': 'warning',
  'erasure-unfinished': 'warning',
  'archive-rewrite-overdue': 'warning',
  'retention-failing': 'warning',
  'retention-overdue': 'warning',
  'not-permitted': 'info',
  'not-checked': 'warning',
}

export function severityOf(code: DoctorCode): FindingSeverity {
  return severities[code]
}

export function found(
  code: DoctorCode,
  message: string,
  remedy: string,
  data: DoctorFinding['data'] = {},
): DoctorFinding {
  return { code, severity: severities[code], message, remedy, data }
}

/** SQL for a remedy is written out up to this length. */
const maxSqlLength = 600

/**
 * The SQL of a remedy. What is too long for a line of text is in the data of the finding.
 *
 * @param before - such as `As the owner of the schema`
 */
export function sqlRemedy(before: string, statements: readonly (string | undefined)[]): string {
  const known = statements.filter((statement) => statement !== undefined)
  const text = known.map((statement) => `${statement.replace(/;\s*$/, '')};`).join(' ')
  if (text.length <= maxSqlLength && !text.includes('\n')) return `${before}: ${text}`
  return `${before}, run each \`sql\` in the data of this finding (\`bossbus doctor --json\` prints them).`
}

/** A name as SQL. */
export function quoteName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}
