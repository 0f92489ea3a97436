import { commandLine } from '../output/command-line.ts'

/** The command line for the next page, to be copied into a shell. A password in it has to be typed again. */
export function nextPageCommand(args: readonly string[], after: string): string {
  const kept: string[] = []
  for (let index = 0; index < args.length; index += 1) {
    const arg = args[index] ?? ''
    if (arg === '--') {
      // What follows are words, whatever they look like.
      return commandLine(...kept, ['--after', after], ...args.slice(index))
    }
    if (arg === '--after') index += 1
    else if (!arg.startsWith('--after=')) kept.push(withoutPassword(arg))
  }
  return commandLine(...kept, ['--after', after])
}

/** Up to the last `@` before the host: a password may have one that is not escaped. */
const passwordInUser = /(postgres(?:ql)?:\/\/[^:@/?]*):.+@/i
const passwordInQuery = /([?&]password=)[^&]*/gi

/** A URL of a database without its password. */
export function withoutPassword(text: string): string {
  return /postgres(?:ql)?:\/\//i.test(text)
    ? text.replace(passwordInUser, '$1:***@').replace(passwordInQuery, '$1***')
    : text
}

export function hasPassword(url: string): boolean {
  return url !== withoutPassword(url)
}
