import { commandLine } from './command-line.ts'

/** The command line for the next page, to be copied into a shell. */
export function nextPageCommand(args: readonly string[], after: string): string {
  const kept: string[] = []
  for (let index = 0; index < args.length; index += 1) {
    const arg = args[index] ?? ''
    if (arg === '--after') index += 1
    else if (!arg.startsWith('--after=')) kept.push(withoutPassword(arg))
  }
  return commandLine(...kept, '--after', after)
}

/** A URL of a database without its password. */
function withoutPassword(text: string): string {
  return text.replace(/(postgres(?:ql)?:\/\/[^:@/?]*):[^@]*@/i, '$1:***@')
}

export function hasPassword(url: string): boolean {
  return /postgres(?:ql)?:\/\/[^:@/?]*:[^@]+@|[?&]password=/i.test(url)
}
