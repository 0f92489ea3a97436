import { program } from '../output/program.ts'
import { usageOf } from './arguments.ts'
import { commandGroups, type Command, type CommandEntry } from './command.ts'
import type { Flags } from './flags.ts'
import { globalFlags } from './global-flags.ts'

const exitCodes = 'Exit codes: 0 all is well, 1 the command found something wrong, 2 it could not be run.'

/** The help of some commands, by group. @param prefix - the first word that they have in common, if there is one */
export function helpOfAll(commands: readonly CommandEntry[], prefix?: string): string {
  const shown = commands.filter(({ name }) => prefix === undefined || name.startsWith(`${prefix} `))
  const width = Math.max(...shown.map(({ name }) => name.length))
  const groups = commandGroups.flatMap((group) => {
    const inGroup = shown.filter((command) => command.group === group)
    if (inGroup.length === 0) return []
    return [
      ...(prefix === undefined ? [group] : []),
      ...inGroup.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`),
      '',
    ]
  })
  return [
    `Usage: ${program()} ${prefix ?? '<command>'} ${prefix === undefined ? '' : '<command> '}[options]`,
    '',
    ...groups,
    ...(prefix === undefined ? ['Options of every command', ...flagLines(globalFlags), '', exitCodes] : []),
    `${program()} <command> --help says more.`,
  ].join('\n')
}

/** The help of a command: its examples first. */
export function helpOf({ name, summary }: CommandEntry, { args, flags, examples, notes }: Command): string {
  const lines = examples.map(([line, what]) => ({ line: `  ${program()} ${line}`, what }))
  const width = Math.max(0, ...lines.map(({ line }) => line.length))
  const shownLine = ({ line, what }: (typeof lines)[number]): string[] =>
    width > 70 ? [`  # ${what}`, line] : [`${line.padEnd(width)}  ${what}`]
  const sections = [
    lines.length === 0 ? [] : ['Examples', ...lines.flatMap(shownLine)],
    [`Usage: ${program()} ${name}${usageOf(args)} [options]`],
    Object.entries(args).map(([arg, { help }]) => `  ${arg.padEnd(24)}  ${help}`),
    Object.keys(flags).length === 0 ? [] : ['Options', ...flagLines(flags)],
    ...notes.map((note) => [note]),
    ['Options of every command', ...flagLines(globalFlags)],
    [exitCodes],
  ]
  return [
    `${summary}.`,
    ...sections.filter((section) => section.length > 0).map((section) => section.join('\n')),
  ].join('\n\n')
}

function flagLines(flags: Flags): string[] {
  return Object.entries(flags).map(([name, { hint, help, isRepeatable }]) => {
    const left = `  ${name === 'help' ? '-h, ' : ''}--${name}${hint === undefined ? '' : ` ${hint}`}`
    const text = `${help}${isRepeatable ? '. May be repeated' : ''}`
    return left.length > 26 ? `${left}\n${' '.repeat(28)}${text}` : `${left.padEnd(28)}${text}`
  })
}
