import { durationSeconds, text, toggle, type Flags } from './flags.ts'

/** What every command takes. */
export const globalFlags = {
  config: text(
    '<file>',
    'The configuration: bossbus.config.ts, .mts, .js or .mjs of this folder, or BOSSBUS_CONFIG',
  ),
  database: text('<url>', 'The database: BOSSBUS_DATABASE_URL, DATABASE_URL, or that of the configuration'),
  'database-file': text(
    '<file>',
    'A file with the URL of the database, to keep its password out of arguments',
  ),
  timeout: durationSeconds('How long the database may take to answer', {
    ...{ min: 0.001, max: 86_400, default: 30 },
  }),
  json: toggle('The result as JSON: a line for each row of a list'),
  yes: toggle('Answers questions of the kind y/N'),
  'no-input': toggle('Asks nothing: what would ask fails'),
  'no-color': toggle('No colours, as with NO_COLOR'),
  help: toggle('Shows this help'),
  version: toggle('Shows the version'),
} as const satisfies Flags
