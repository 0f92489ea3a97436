import { required } from '../command/arguments.ts'
import { defineCommand } from '../command/command.ts'
import { UsageError } from '../command/usage-error.ts'

export const completion = defineCommand({
  examples: [
    ['completion bash >> ~/.bash_completion', 'for bash'],
    ['completion zsh > ~/.zfunc/_bossbus', 'for zsh, with ~/.zfunc in its fpath'],
    ['completion fish > ~/.config/fish/completions/bossbus.fish', 'for fish'],
  ],
  notes: [
    'Completes commands, options, and the values of options that take one of some words. The script is static: write it again after an update.',
  ],
  args: { shell: required('bash, zsh or fish', ['bash', 'zsh', 'fish']) },
  async run({ args, commands, output }) {
    const [{ readCompletionTree }, { bashScript, fishScript, zshScript }] = await Promise.all([
      import('../completion/completion-tree.ts'),
      import('../completion/shell-scripts.ts'),
    ])
    const scripts = new Map([
      ['bash', bashScript],
      ['zsh', zshScript],
      ['fish', fishScript],
    ])
    const script = scripts.get(args.shell)
    if (script === undefined)
      throw new UsageError(
        `Expected one of ${[...scripts.keys()].join(', ')}, got ${args.shell.slice(0, 80)}`,
      )
    output.raw(script(await readCompletionTree(commands)))
    return 0
  },
})
