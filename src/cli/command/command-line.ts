/** A command line of `bossbus`, to be copied into a POSIX shell. */
export function commandLine(...words: readonly string[]): string {
  return ['bossbus', ...words].map(quote).join(' ')
}

function quote(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`
}
