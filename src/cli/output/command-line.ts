import { program } from './program.ts'

/** Control, format (bidi, zero width), line and paragraph characters: nobody could copy them from a terminal. */
const unprintable = String.raw`\p{Cc}\p{Cf}\p{Zl}\p{Zp}`
const hasUnprintable = new RegExp(`[${unprintable}]`, 'u')
const toBeEscaped = new RegExp(`['\\\\${unprintable}]`, 'gu')

/** A word of a command line: as it is, or an option with its value. */
export type CommandWord = string | readonly [option: string, value: string]

/** A command line of `bossbus`, to be copied into bash, zsh or any other POSIX shell. */
export function commandLine(...words: readonly CommandWord[]): string {
  return [
    program(),
    ...words.map((word) => (typeof word === 'string' ? quote(word) : optionOf(...word))),
  ].join(' ')
}

/** An option and its value, to be copied in the same way. */
export function optionOf(option: string, value: string): string {
  // A value that begins with a hyphen would be taken for an option.
  return value.startsWith('-') ? quote(`${option}=${value}`) : `${option} ${quote(value)}`
}

/** A text as one word of a shell, in characters that can be seen. */
function quote(text: string): string {
  if (/^[\w@%+=:,./-]+$/.test(text)) return text
  if (!hasUnprintable.test(text)) return `'${text.replaceAll("'", String.raw`'\''`)}'`
  // In POSIX since 2024; bash and zsh have always had it.
  return `$'${text.replaceAll(toBeEscaped, escaped)}'`
}

function escaped(character: string): string {
  if (character === "'" || character === '\\') return `\\${character}`
  return [...Buffer.from(character)].map((byte) => `\\${byte.toString(8).padStart(3, '0')}`).join('')
}
