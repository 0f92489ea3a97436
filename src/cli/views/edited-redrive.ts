import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import type { Bus } from '../../bus-interface.ts'
import { escapeUnprintable } from '../../foundation/text.ts'
import type { Change } from '../../operations/dead-letters/payload-changes.ts'
import type { CommandContext, ExitCode } from '../command/command.ts'
import { UsageError } from '../command/usage-error.ts'
import { diffLines } from '../output/diff-lines.ts'
import { green, quiet, red } from '../output/styled.ts'

type Context = Pick<
  CommandContext,
  'output' | 'inTime' | 'confirm' | 'actor' | 'cwd' | 'env' | 'isInteractive' | 'flags'
>

/** Files may be larger than any payload that publish accepts, and are refused by it then. */
const maxFileBytes = 64 * 1024 * 1024

/** A payload that somebody has edited. */
interface EditedPayload {
  readonly payload: unknown
  /** The file that has it, kept if it is refused. Undefined for a file that was there before. */
  readonly draft: string | undefined
}

/** @throws a {@link UsageError} if nothing can be edited here, or the file is no JSON */
export async function prepareEdit({ isInteractive, cwd }: Context, file: string | undefined): Promise<void> {
  if (file !== undefined) await readPayload(resolve(cwd, file), file)
  else if (!isInteractive)
    throw new UsageError(
      '--edit needs a person at a terminal: use --payload <file>, of which `events show <id> --json | jq .event.payload` is a beginning',
    )
}

/** Delivers an edited copy in the place of a dead letter. Shows first what differs. */
export async function redriveEdited(
  context: Context,
  bus: Bus,
  { id, subscription }: { readonly id: string; readonly subscription: string },
  file: string | undefined,
): Promise<ExitCode> {
  const { output, inTime, confirm, actor, cwd, flags } = context
  const event = await inTime(bus.events.get(id))
  if (event === undefined) {
    output.note(`The event ${id} is not in the log any more.`)
    return 1
  }
  const before = textOf(event.payload)
  const { payload, draft } =
    file === undefined
      ? await edit(context, before)
      : { payload: await readPayload(resolve(cwd, file), file), draft: undefined }
  try {
    const plan = await inTime(
      bus.deadLetters.redriveEdited(id, subscription, { ...actor(), payload, dryRun: true }),
    )
    if (plan.changes.length === 0) {
      output.object(plan, () => output.line('Nothing differs from the event: nothing was changed.'))
      await forget(draft)
      return 1
    }
    for (const { kind, text } of diffLines(before.split('\n'), textOf(payload).split('\n')))
      output.note(
        kind === 'same' ? quiet(`  ${text}`) : kind === 'added' ? green(`+ ${text}`) : red(`- ${text}`),
      )
    if (flags['dry-run'] === true) {
      output.object(plan, () => output.table(plan.changes, changeColumns))
      await forget(draft)
      return 0
    }
    await confirm({ what: `Deliver this copy to ${subscription}, and discard the dead letter` })
    const done = await inTime(bus.deadLetters.redriveEdited(id, subscription, { ...actor(), payload }))
    output.object(done, () =>
      output.line(`Event ${done.id ?? ''} is delivered to ${subscription} in its place.`),
    )
    output.note(`Next: ${output.command('events', 'show', done.id ?? '')}`)
    await forget(draft)
    return 0
  } catch (error) {
    if (draft !== undefined)
      output.note(
        `Your edit is kept: ${output.command('dead-letters', 'redrive', id, ['--subscription', subscription], ['--payload', draft])}`,
      )
    throw error
  }
}

const changeColumns = [
  { title: 'WHERE', value: ({ path }: Change) => path },
  { title: 'WHAT', value: ({ what }: Change) => what, isProse: true },
]

/** Still JSON, and nothing in it commands the terminal of the editor. */
function textOf(payload: unknown): string {
  return (JSON.stringify(payload, undefined, 2) ?? 'null').split('\n').map(escapeUnprintable).join('\n')
}

async function edit({ env }: Context, before: string): Promise<EditedPayload> {
  const editor = [env['VISUAL'], env['EDITOR']].find((name) => name !== undefined && name !== '') ?? 'vi'
  // Nobody else may read it.
  const draft = join(await mkdtemp(join(tmpdir(), 'bossbus-edit-')), 'payload.json')
  await writeFile(draft, `${before}\n`, { mode: 0o600 })
  const code = await open(editor, draft)
  if (code !== 0) {
    await forget(draft)
    throw new UsageError(`The editor \`${editor}\` ended with ${code}: nothing was changed`)
  }
  return { payload: await readPayload(draft, draft), draft }
}

/** As git does: the name may have options, such as `code --wait`. */
async function open(editor: string, file: string): Promise<number | string> {
  const child =
    process.platform === 'win32'
      ? spawn(`${editor} "${file}"`, { stdio: 'inherit', shell: true })
      : spawn('sh', ['-c', `${editor} "$1"`, 'sh', file], { stdio: 'inherit' })
  return new Promise((done, failed) => {
    child.once('error', failed)
    child.once('close', (code, signal) => done(code ?? signal ?? 'no code'))
  })
}

async function readPayload(file: string, name: string): Promise<unknown> {
  let text: string
  try {
    const bytes = await readFile(file)
    if (bytes.length > maxFileBytes) throw new Error(`it has ${bytes.length} bytes`)
    text = bytes.toString('utf8')
  } catch (error) {
    throw new UsageError(`${name} could not be read: ${(error as Error).message}`, { cause: error })
  }
  try {
    return JSON.parse(text) as unknown
  } catch (error) {
    throw new UsageError(`${name} is no JSON: ${(error as Error).message}`, { cause: error })
  }
}

async function forget(draft: string | undefined): Promise<void> {
  if (draft !== undefined) await rm(join(draft, '..'), { recursive: true, force: true })
}
