import { nextWords, type CompletedFlag, type CompletionTree } from './completion-tree.ts'

/** A text in single quotes, for bash and zsh. */
const quoted = (text: string): string => `'${text.replaceAll("'", String.raw`'\''`)}'`

/** Options of every command that take a value: they may stand before its name. */
const globalValueFlags = ({ globalFlags }: CompletionTree): readonly string[] =>
  globalFlags.filter(({ value }) => value !== 'none').map(({ name }) => `--${name}`)

/** A line for a word and what it means, between a tab. */
const described = (word: string, help: string): string => `${word}\t${help.replaceAll(/\s+/g, ' ')}`

/** Functions that bash and zsh share: each prints a line for each word, with its meaning after a tab. */
function sharedFunctions(tree: CompletionTree): string {
  const cases = (entries: readonly (readonly [pattern: string, lines: readonly string[]])[]): string =>
    entries
      .map(([pattern, lines]) => `    ${pattern}) printf '%s\\n' ${lines.map(quoted).join(' ')} ;;`)
      .join('\n')
  const valuesOf = (flags: readonly CompletedFlag[], pattern: (name: string) => string) =>
    flags.flatMap(({ name, value }): (readonly [string, readonly string[]])[] =>
      value === 'none' ? [] : [[pattern(name), typeof value === 'string' ? [`<${value}>`] : value]],
    )
  const values = [
    ...tree.commands.flatMap(({ name, flags }) => valuesOf(flags, (flag) => quoted(`${name} --${flag}`))),
    // Also before the name of a command.
    ...valuesOf(tree.globalFlags, (flag) => `*' --${flag}'`),
  ]
  return `# The words that may follow these.
__bossbus_words() {
  case "$1" in
${cases(nextWords(tree).map(({ after, words }) => [quoted(after), words.map(([word, help]) => described(word, help))]))}
  esac
}

# The options of a command. Nothing if there is no such command.
__bossbus_options() {
  case "$1" in
${cases(tree.commands.map(({ name, flags }) => [quoted(name), flags.map((flag) => described(`--${flag.name}`, flag.help))]))}
  esac
}

# The values of an option: words, <file>, or <any>. Nothing if it takes none.
__bossbus_values() {
  case "$1 $2" in
${cases(values)}
  esac
}

# The command among the words typed so far, in __bossbus_command: whole, or its first word.
__bossbus_find() {
  __bossbus_command=''
  local word skip=''
  for word in "$@"; do
    if [ -n "$skip" ]; then skip=''; continue; fi
    case "$word" in
      ${globalValueFlags(tree).join('|')}) [ -z "$__bossbus_command" ] && skip=1 ;;
      -*) ;;
      *)
        if [ -n "$__bossbus_command" ] && [ -n "$(__bossbus_options "$__bossbus_command")" ] && [ -z "$(__bossbus_options "$__bossbus_command $word")" ]; then return; fi
        __bossbus_command="\${__bossbus_command:+$__bossbus_command }$word" ;;
    esac
  done
}`
}

export function bashScript(tree: CompletionTree): string {
  return `# bossbus: completion for bash. Load it with: source <(bossbus completion bash)
${sharedFunctions(tree)}

__bossbus_complete() {
  local current="\${COMP_WORDS[COMP_CWORD]}" before="\${COMP_WORDS[COMP_CWORD-1]}" lines line values
  # bash takes --option=value apart.
  if [ "$current" = '=' ]; then current=''
  elif [ "$before" = '=' ]; then before="\${COMP_WORDS[COMP_CWORD-2]}"; fi
  __bossbus_find "\${COMP_WORDS[@]:1:COMP_CWORD-1}"
  values="$(__bossbus_values "$__bossbus_command" "$before")"
  COMPREPLY=()
  case "$values" in
    '<file>') compopt -o default 2>/dev/null; COMPREPLY=($(compgen -f -- "$current")); return ;;
    '<any>') return ;;
    '')
      case "$current" in
        -*) lines="$(__bossbus_options "$__bossbus_command")" ;;
        *) lines="$(__bossbus_words "$__bossbus_command")" ;;
      esac ;;
    *) lines="$values" ;;
  esac
  while IFS= read -r line; do
    line="\${line%%$'\\t'*}"
    if [ -n "$line" ]; then case "$line" in "$current"*) COMPREPLY+=("$line") ;; esac; fi
  done <<< "$lines"
}
complete -F __bossbus_complete bossbus`
}

export function zshScript(tree: CompletionTree): string {
  return `#compdef bossbus
# bossbus: completion for zsh. Load it after compinit with: source <(bossbus completion zsh)
${sharedFunctions(tree)}

_bossbus() {
  local values line
  local -a lines
  __bossbus_find "\${(@)words[2,CURRENT-1]}"
  values="$(__bossbus_values "$__bossbus_command" "\${words[CURRENT-1]}")"
  case "$values" in
    '<file>') _files; return ;;
    '<any>') return 1 ;;
    '')
      case "\${words[CURRENT]}" in
        -*) values="$(__bossbus_options "$__bossbus_command")" ;;
        *) values="$(__bossbus_words "$__bossbus_command")" ;;
      esac ;;
  esac
  for line in "\${(@f)values}"; do
    [ -n "$line" ] && lines+=("\${line/$'\\t'/:}")
  done
  (( \${#lines} )) && _describe bossbus lines
}
if [ "$funcstack[1]" = _bossbus ]; then _bossbus "$@"; else compdef _bossbus bossbus; fi`
}

/** A text in single quotes, for fish. */
const fishQuoted = (text: string): string =>
  `'${text.replaceAll('\\', String.raw`\\`).replaceAll("'", String.raw`\'`)}'`

export function fishScript(tree: CompletionTree): string {
  const word =
    (after: string) =>
    ([each, help]: readonly [string, string]): string =>
      `complete -c bossbus -n ${fishQuoted(`__bossbus_at ${fishQuoted(after)}`)} -a ${fishQuoted(each)} -d ${fishQuoted(help)}`
  const flag =
    (command: string) =>
    (each: CompletedFlag): string =>
      `complete -c bossbus -n ${fishQuoted(`__bossbus_in ${fishQuoted(command)}`)} -l ${each.name}${fishValue(each)} -d ${fishQuoted(each.help)}`
  return `# bossbus: completion for fish. Load it with: bossbus completion fish | source
function __bossbus_typed
    set -l skip 0
    for token in (commandline -opc)[2..-1]
        if test $skip = 1
            set skip 0
        else if contains -- $token ${globalValueFlags(tree).join(' ')}
            set skip 1
        else if not string match -q -- '-*' $token
            echo $token
        end
    end
end

function __bossbus_at
    set -l typed (__bossbus_typed)
    test "$typed" = "$argv[1]"
end

function __bossbus_in
    set -l count (count (string split ' ' $argv[1]))
    set -l typed (__bossbus_typed)
    test (count $typed) -ge $count; and test "$typed[1..$count]" = "$argv[1]"
end

complete -c bossbus -f
${nextWords(tree)
  .flatMap(({ after, words }) => words.map(word(after)))
  .join('\n')}
${tree.commands.flatMap(({ name, flags }) => flags.map(flag(name))).join('\n')}`
}

function fishValue({ value }: CompletedFlag): string {
  if (value === 'none') return ''
  if (value === 'any') return ' -x'
  return value === 'file' ? ' -r -F' : ` -x -a ${fishQuoted(value.join(' '))}`
}
