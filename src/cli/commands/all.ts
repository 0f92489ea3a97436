import type { Command } from '../command/command.ts'
import { catalogCheck } from './catalog-check.ts'
import { catalogExport } from './catalog-export.ts'
import { migrate } from './migrate.ts'

/** Every command, in the order of the help. */
export const commands: readonly Command[] = [migrate, catalogCheck, catalogExport]
