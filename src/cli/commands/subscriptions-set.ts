import type { RetryOptions } from '../../delivery/subscriptions/subscription-options.ts'
import { limits } from '../../foundation/limits.ts'
import { required } from '../command/arguments.ts'
import { defineCommand } from '../command/command.ts'
import { integer, json, timeAhead, toggle } from '../command/flags.ts'
import { changeFlags } from '../command/shared-flags.ts'
import { UsageError } from '../command/usage-error.ts'
import { isoTime } from '../output/cells.ts'
import { jsonText } from '../output/json-text.ts'
import { yellow } from '../output/styled.ts'
import { overridesText, writeSubscription } from '../views/subscription-page.ts'

export const subscriptionsSet = defineCommand({
  examples: [
    ['subscriptions set ledger --concurrency 2 --until 2h', 'for two hours, in every process'],
    [
      `subscriptions set ledger --retry '{"maxAttempts":3}' --until 1d`,
      'all of retry: the rest has its defaults',
    ],
    ['subscriptions set ledger --paused --until 15m', 'a pause that ends by itself'],
    ['subscriptions set ledger --clear', 'the options of the code count again'],
  ],
  notes: ['They replace all that was set before. At most 30 days ahead.'],
  args: { name: required('The subscription') },
  flags: {
    concurrency: integer('<n>', 'Handlers at a time in each process', { min: 1, max: 1000 }),
    retry: json('As `retry` of the code', '{"maxAttempts":3}', 'retry'),
    paused: toggle('No event is begun until then'),
    until: timeAhead('When the options of the code count again', limits.overrideSeconds),
    clear: toggle('They count again now'),
    ...changeFlags,
  },
  async run({ args, flags, bus, output, actor }) {
    const { concurrency, paused, until, clear } = flags
    // The bus says what may be in it.
    const retry = flags.retry as RetryOptions | undefined
    const isAny = concurrency !== undefined || retry !== undefined || paused
    if (clear ? isAny || until !== undefined : !isAny)
      throw new UsageError(
        clear ? 'Give --clear alone' : 'Say what to set: --concurrency, --retry or --paused; or --clear',
      )
    if (isAny && until === undefined) throw new UsageError('Say until when: --until 2h')
    const options = { concurrency, retry, ...(paused ? { paused } : {}) }
    const { subscriptions } = await bus()
    const before = await subscriptions.get(args.name)
    const isDryRun = flags['dry-run']
    if (!isDryRun) await subscriptions.setOptions(before.name, options, { ...actor(), expiresAt: until })
    const subscription = isDryRun ? before : await subscriptions.get(before.name)
    output.object(
      isDryRun
        ? { dryRun: true, changed: true, subscription, options, expiresAt: until }
        : { changed: true, subscription },
      () => {
        const earlier = overridesText(before.overrides)
        if (earlier !== undefined)
          output.line(
            yellow(`${isDryRun ? 'It would replace' : 'Replaced'} what was set before: ${earlier}.`),
          )
        if (isDryRun)
          output.line(
            until === undefined
              ? `The options of the code would count again for ${before.name}.`
              : `${jsonText(options)} would count for ${before.name} until ${isoTime(until)}, and nothing else that was set before.`,
          )
        writeSubscription(output, subscription)
      },
    )
    if (isAny && !isDryRun)
      output.note(`Next: ${output.command('subscriptions', 'set', before.name, '--clear')} ends it earlier.`)
    return 0
  },
})
