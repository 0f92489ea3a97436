import type { CommandEntry } from '../command/command.ts'

/** Every command, in the order of the help. The file of a command is loaded when it is called. */
export const commands: readonly CommandEntry[] = [
  {
    name: 'init',
    summary: 'Writes a configuration, an event, a subscription and a service that runs',
    group: 'Set up',
    load: async () => (await import('./init.ts')).init,
  },
  {
    name: 'dev',
    summary: 'Runs your service on this machine, with a database if you have none, and shows its events',
    group: 'Set up',
    load: async () => (await import('./dev.ts')).dev,
  },
  {
    name: 'migrate',
    summary: 'Creates or updates the schemas of the bus and of pg-boss',
    group: 'Set up',
    load: async () => (await import('./migrate.ts')).migrate,
  },
  {
    name: 'status',
    summary: 'One screen: what needs you, subscriptions, outbox, dead letters, operations',
    group: 'Look',
    load: async () => (await import('./status.ts')).status,
  },
  {
    name: 'watch',
    summary: '`bossbus status`, every two seconds',
    group: 'Look',
    load: async () => (await import('./watch.ts')).watch,
  },
  {
    name: 'instances',
    summary: 'The processes of the bus',
    group: 'Look',
    load: async () => (await import('./instances.ts')).instances,
  },
  {
    name: 'tenants',
    summary: 'Who publishes and who waits',
    group: 'Look',
    load: async () => (await import('./tenants.ts')).tenants,
  },
  {
    name: 'events find',
    summary: 'Finds events of the log, newest first',
    group: 'Events',
    load: async () => (await import('./events-find.ts')).eventsFind,
  },
  {
    name: 'events show',
    summary: 'An event: where it is and why, its attempts, its cause and its effects',
    group: 'Events',
    load: async () => (await import('./events-show.ts')).eventsShow,
  },
  {
    name: 'events trace',
    summary: 'The events that belong together, each below its cause',
    group: 'Events',
    load: async () => (await import('./events-trace.ts')).eventsTrace,
  },
  {
    name: 'events tail',
    summary: 'Events as they are published, and what becomes of them',
    group: 'Events',
    load: async () => (await import('./events-tail.ts')).eventsTail,
  },
  {
    name: 'events publish',
    summary: 'Publishes an event',
    group: 'Events',
    load: async () => (await import('./events-publish.ts')).eventsPublish,
  },
  {
    name: 'explain',
    summary: 'Why an event is where it is, for each subscription',
    group: 'Events',
    load: async () => (await import('./explain.ts')).explain,
  },
  {
    name: 'catalog check',
    summary: 'Fails where a change of the catalogue breaks what is stored, or who reads it',
    group: 'Catalogue',
    load: async () => (await import('./catalog-check.ts')).catalogCheck,
  },
  {
    name: 'catalog export',
    summary: 'Writes the catalogue as JSON Schema or AsyncAPI 3.0',
    group: 'Catalogue',
    load: async () => (await import('./catalog-export.ts')).catalogExport,
  },
  {
    name: 'mcp',
    summary: 'Serves the reads of the bus, and what you allow, to an assistant (Model Context Protocol)',
    group: 'More',
    load: async () => (await import('./mcp.ts')).mcp,
  },
  {
    name: 'completion',
    summary: 'Writes a script that completes commands and options in your shell',
    group: 'More',
    load: async () => (await import('./completion.ts')).completion,
  },
]
