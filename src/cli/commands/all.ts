import type { CommandEntry } from '../command/command.ts'

/** Every command, in the order of the help. The file of a command is loaded when it is called. */
export const commands: readonly CommandEntry[] = [
  {
    name: 'migrate',
    summary: 'Creates or updates the schemas of the bus and of pg-boss',
    group: 'Set up',
    load: async () => (await import('./migrate.ts')).migrate,
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
]
