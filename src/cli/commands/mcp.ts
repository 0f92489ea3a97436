import { nearest } from '../../foundation/options.ts'
import { defineCommand } from '../command/command.ts'
import { text, texts } from '../command/flags.ts'
import { UsageError } from '../command/usage-error.ts'
import { actionTools } from '../mcp/action-tools.ts'
import { readTools } from '../mcp/read-tools.ts'
import { visible } from '../output/visible-text.ts'

export const mcp = defineCommand({
  examples: [
    ['mcp', 'for the configuration of an assistant: it only reads'],
    ['mcp --allow deadLetters.redrive,subscriptions.pause', 'it may do these, too'],
  ],
  notes: [
    `Speaks the Model Context Protocol on standard input and output. Needs @modelcontextprotocol/server. Payloads are redacted as the catalogue says.`,
    `Actions: ${actionTools.map(({ action }) => action).join(', ')}. Each has a reason, and is recorded in the audit as done by mcp:<user>.`,
  ],
  flags: {
    allow: texts('<actions>', 'What it may change, such as deadLetters.redrive, between commas (nothing)'),
    by: text(
      '<name>',
      'Whose assistant it is, for the audit: BOSSBUS_BY, or the user of the operating system',
    ),
  },
  isLong: true,
  async run({ flags, bus, inTime, actor, interruption }) {
    const allowed = new Set(flags.allow.flatMap((each) => each.split(',')).map((each) => each.trim()))
    const known = actionTools.map(({ action = '' }) => action)
    for (const each of allowed)
      if (!known.includes(each)) {
        const near = nearest(each, known)
        throw new UsageError(
          `There is no action ${visible(each.slice(0, 80))}${near === undefined ? `: there are ${known.join(', ')}` : `. Did you mean ${near}?`}`,
        )
      }
    const tools = [...readTools, ...actionTools.filter(({ action = '' }) => allowed.has(action))]
    const by = `mcp:${actor().by}`
    const { serveTools } = await import('../mcp/serve.ts')
    // A database that does not answer is told to whoever asks: the server goes on.
    await serveTools(
      tools.map((tool) => ({ ...tool, run: async (...call) => inTime(tool.run(...call)) })),
      async () => ({ bus: await inTime(bus()), by }),
      interruption(),
    )
    return 0
  },
})
