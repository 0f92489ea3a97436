import type { Bus } from '../../bus-interface.ts'
import { booleanOf, numberOf, textOf, textsOf, timeOf } from './arguments.ts'
import { letterConditions, letterProperties } from './read-tools.ts'
import { textProperty, textsProperty, timeProperty, type Properties, type Tool } from './tool.ts'

const reason = { ...textProperty('Why, in a sentence: it is recorded in the audit'), minLength: 1 }
const dryRun: Properties[string] = {
  type: 'boolean',
  description: 'Only counts what would be done (true). Set it to false to do it, once a person has agreed',
}
const ids = textsProperty('These events, of the subscription')
const rate: Properties[string] = {
  ...{ type: 'integer', minimum: 1, maximum: 100_000 },
  description: 'Events a second at most',
}

type Given = Parameters<Tool['run']>[1]

const selectionOf = async (
  bus: Bus,
  given: Given,
): Promise<
  Awaited<ReturnType<typeof letterConditions>> & { readonly ids: readonly string[] | undefined }
> => ({
  ...(await letterConditions(bus, given)),
  ids: textsOf(given, 'ids'),
})
/** Unless the answer of a person is clear, nothing is done. */
const isDry = (given: Given): boolean => booleanOf(given, 'dry_run') ?? true

interface ActionParts {
  readonly action: string
  readonly description: string
  readonly properties: Properties
  readonly required: readonly string[]
  readonly isDestructive?: boolean
  readonly run: Tool['run']
}

function actionTool(name: string, { isDestructive = false, ...parts }: ActionParts): Tool {
  return {
    ...parts,
    name,
    isDestructive,
    properties: { ...parts.properties, reason },
    required: [...parts.required, 'reason'],
  }
}

/** Each is there only with `--allow`. */
export const actionTools: readonly Tool[] = [
  actionTool('redrive_dead_letters', {
    action: 'deadLetters.redrive',
    description:
      'Tries dead letters again, by an operation that stops by itself if the first ones fail again.',
    properties: { ...letterProperties, ids, rate, dry_run: dryRun },
    required: [],
    run: async ({ bus, by }, given) =>
      bus.deadLetters.redrive(await selectionOf(bus, given), {
        ...{ by, reason: textOf(given, 'reason'), rate: numberOf(given, 'rate'), dryRun: isDry(given) },
      }),
  }),
  actionTool('discard_dead_letters', {
    action: 'deadLetters.discard',
    description: 'Gives up dead letters: their events are never delivered. Cannot be undone.',
    properties: { ...letterProperties, ids, dry_run: dryRun },
    required: [],
    isDestructive: true,
    run: async ({ bus, by }, given) =>
      bus.deadLetters.discard(await selectionOf(bus, given), {
        ...{ by, reason: textOf(given, 'reason') ?? '', dryRun: isDry(given) },
      }),
  }),
  actionTool('replay_events', {
    action: 'replay',
    description: 'Delivers events of the log to chosen subscriptions once more, by an operation.',
    properties: {
      subscriptions: textsProperty('Those that get the events'),
      tenant: textProperty('Of this tenant'),
      types: textsProperty('Of these types'),
      from: timeProperty('Published then or later'),
      to: timeProperty('Published before'),
      ids: textsProperty('These events'),
      ...{ rate, dry_run: dryRun },
    },
    required: ['subscriptions'],
    async run({ bus, by }, given) {
      const what = {
        subscriptions: textsOf(given, 'subscriptions') ?? [],
        ...{ tenantId: textOf(given, 'tenant'), type: textsOf(given, 'types'), ids: textsOf(given, 'ids') },
        ...{ from: timeOf(given, 'from'), to: timeOf(given, 'to'), rate: numberOf(given, 'rate') },
      }
      return isDry(given)
        ? bus.replay({ ...what, dryRun: true })
        : bus.replay({ ...what, by, reason: textOf(given, 'reason') })
    },
  }),
  ...(['pause', 'resume'] as const).map((what) =>
    actionTool(`${what}_subscription`, {
      action: `subscriptions.${what}`,
      description:
        what === 'pause'
          ? 'Pauses a subscription in every process: its events wait.'
          : 'Resumes a subscription that is paused or whose circuit breaker is open.',
      properties: { name: textProperty('The subscription') },
      required: ['name'],
      run: async ({ bus, by }, given) => ({
        changed: await bus.subscriptions[what](textOf(given, 'name') ?? '', {
          by,
          reason: textOf(given, 'reason'),
        }),
      }),
    }),
  ),
  ...(['pause', 'resume', 'cancel'] as const).map((what) =>
    actionTool(`${what}_operation`, {
      action: `operations.${what}`,
      description: {
        pause: 'Holds a redrive, replay or other operation.',
        resume: 'Goes on with an operation that was held, or has stopped by itself.',
        cancel: 'Ends an operation before it is done. What it has done so far stays.',
      }[what],
      properties: { id: textProperty('The operation') },
      required: ['id'],
      isDestructive: what === 'cancel',
      run: async ({ bus, by }, given) => ({
        changed: await bus.operations[what](textOf(given, 'id') ?? '', {
          by,
          reason: textOf(given, 'reason'),
        }),
      }),
    }),
  ),
]
