import { onTestFinished } from 'vitest'
import { runCli, type CliResult, type Person } from './cli.ts'
import { until } from './database.ts'

/** A command that goes on until Ctrl-C. */
export interface RunningCommand {
  /** What it has written so far. */
  readonly written: { readonly out: string; readonly err: string }
  /** Waits until one of the streams contains a text. */
  readonly says: (text: string | RegExp) => Promise<void>
  readonly press: (key: string) => void
  /** Ctrl-C. */
  readonly interrupt: () => Promise<CliResult>
  readonly ended: Promise<CliResult>
}

/** Starts a command that follows something. Interrupted when the test is over. */
export function startCli(
  cwd: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
  person: Person = {},
): RunningCommand {
  const controller = new AbortController()
  const written = { out: '', err: '' }
  let press: (key: string) => void = () => {}
  const ended = runCli(cwd, args, env, {
    ...person,
    signal: controller.signal,
    onWrite: (name, text) => void (written[name] += text),
    onKeys: (hear) => (press = hear),
  })
  const interrupt = async (): Promise<CliResult> => {
    controller.abort()
    return ended
  }
  onTestFinished(async () => void (await interrupt()))
  return {
    ...{ written, interrupt, ended, press: (key) => press(key) },
    async says(text) {
      await until(`it says ${String(text)}`, async () =>
        [written.out, written.err].some((all) =>
          typeof text === 'string' ? all.includes(text) : text.test(all),
        ),
      ).catch((error: unknown) => {
        throw new Error(`${(error as Error).message}. It wrote ${JSON.stringify(written)}`)
      })
    },
  }
}
