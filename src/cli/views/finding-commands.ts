import type { DoctorFinding } from '../../doctor/check/finding.ts'
import type { CommandWord } from '../output/command-line.ts'
import { asCalled } from '../output/program.ts'

/** Commands for more of the same are left out. */
const maxCommands = 3

/** For each subscription, operation and so on that a finding is about. */
const commandsOf: Partial<Record<DoctorFinding['code'], (item: Item) => readonly CommandWord[]>> = {
  'subscription-behind': ({ name }) => ['subscriptions', 'show', name],
  'subscription-paused': ({ name }) => ['subscriptions', 'resume', name],
  'circuit-open': ({ name }) => ['subscriptions', 'show', name],
  'subscription-unserved': ({ name }) => ['subscriptions', 'show', name],
  'events-not-covered': ({ name }) => ['subscriptions', 'show', name],
  'dead-letters-growing': ({ name }) => ['dead-letters', 'groups', ['--subscription', name]],
  'messages-quarantined': ({ receiver }) => ['quarantine', 'list', ['--receiver', receiver]],
  'operation-stopped': ({ id }) => ['operations', 'show', id],
  'instance-lost': () => ['instances'],
  'versions-differ': () => ['instances'],
  'schema-differs': () => ['instances'],
  'partitions-missing': () => ['migrate'],
  'canary-failing': () => ['instances'],
  'schema-missing': () => ['migrate'],
  'schema-outdated': () => ['migrate'],
  'boss-schema-missing': () => ['migrate'],
  'boss-schema-outdated': () => ['migrate'],
  'keys-blocked': ({ name }) => ['keys', 'list', name],
  'dead-letters-waiting': ({ name }) => ['dead-letters', 'groups', ['--subscription', name]],
  'operation-stalled': ({ id }) => ['operations', 'show', id],
  'retention-overdue': () => ['prune', '--dry-run'],
}

/** Calls of the API that remedies name, and the commands that do the same. */
const commandsOfCalls: readonly (readonly [call: RegExp, command: string])[] = [
  [/bus\.subscriptions\.resume\((?:name)?\)/g, 'subscriptions resume <name>'],
  [/bus\.deadLetters\.groups\(\)/g, 'dead-letters groups'],
  [/bus\.operations\.get\((?:id)?\)/g, 'operations show <id>'],
  // The remedy names the command as well.
  [/bus\.blockedKeys\.list\(\), or `bossbus keys list`,/g, 'keys list'],
  [/bus\.quarantine\.list\(\)/g, 'quarantine list'],
  [/bus\.migrate\(\)/g, 'migrate'],
]

/** A finding of the health or of the doctor for whoever uses the command line: its remedy names commands, as they are called here. */
export function findingAsCalled<F extends Pick<DoctorFinding, 'message' | 'remedy'>>(finding: F): F {
  const remedy = commandsOfCalls.reduce(
    (text, [call, command]) => text.replaceAll(call, `\`npx bossbus ${command}\``),
    finding.remedy,
  )
  return { ...finding, message: asCalled(finding.message), remedy: asCalled(remedy) }
}

interface Item {
  readonly name: string
  readonly receiver: string
  readonly id: string
}

/**
 * What to run for a finding of the health or of the doctor: what mends it, or tells more.
 *
 * @param commandLine - makes a command line to be copied
 */
export function findingCommands(
  { code, data }: Pick<DoctorFinding, 'code' | 'data'>,
  commandLine: (...words: readonly CommandWord[]) => string,
): readonly string[] {
  const command = commandsOf[code]
  if (command === undefined) return []
  const lists = [data['subscriptions'], data['operations'], data['receivers']].filter((each) =>
    Array.isArray(each),
  )
  const items = (lists.flat() as readonly Partial<Item>[]).slice(0, maxCommands)
  const lines = (items.length === 0 ? [{}] : items).map(
    ({ name = '', id = '', receiver = '' }: Partial<Item>) => commandLine(...command({ name, id, receiver })),
  )
  return [...new Set(lines)]
}
