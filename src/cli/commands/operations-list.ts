import { defineCommand } from '../command/command.ts'
import { choice, text } from '../command/flags.ts'
import { pageFlags } from '../command/shared-flags.ts'
import { operationColumns } from '../views/operation-page.ts'

export const operationsList = defineCommand({
  examples: [
    ['operations list', 'latest first'],
    ['operations list --state stopped', 'those that a person has to decide about'],
  ],
  flags: {
    kind: choice(['redrive', 'discard', 'replay', 'catch-up', 'remove'], 'Of this kind'),
    state: choice(['running', 'paused', 'stopped', 'done', 'cancelled'], 'In this state'),
    subscription: text('<name>', 'About this subscription'),
    ...pageFlags,
  },
  async run({ flags, bus, output, nextPage }) {
    const { operations } = await bus()
    const { kind, state, subscription, limit, after } = flags
    const rows = await operations.list({ kind, state, subscription, limit, after })
    output.list(rows, operationColumns, 'There are no such operations.')
    const last = rows.at(-1)
    if (last !== undefined && rows.length === limit) nextPage(last.id)
    return 0
  },
})
