import type { Operation, OperationState } from '../../operations/operation.ts'
import { required } from '../command/arguments.ts'
import { defineCommand, type Command } from '../command/command.ts'
import { changeFlags } from '../command/shared-flags.ts'
import { counted } from '../output/cells.ts'
import { doneOf, writeOperation } from './operation-page.ts'

/** A change of the state of an operation. */
interface Step {
  /** As the command is called. */
  readonly name: 'hold' | 'resume' | 'cancel'
  /** As the API calls it. */
  readonly call: 'pause' | 'resume' | 'cancel'
  readonly from: readonly OperationState[]
  readonly what: string
  readonly note: string
  /** What undoes it, or comes next. Undefined: it cannot be undone. */
  readonly next: string | undefined
}

/** The command for a step, which says by itself whether it has changed anything: 1 if not. */
export function steeringCommand({ name, call, from, what, note, next }: Step): Command {
  return defineCommand({
    examples: [[`operations ${name} 0192f7c1-6d2e-7c3a-9a41-2b7f0e6d9c10`, what]],
    notes: [note],
    args: { id: required('The id of the operation') },
    flags: changeFlags,
    isLong: true,
    async run({ args, flags, bus, output, inTime, confirm, actor }) {
      const { operations } = await inTime(bus())
      const before = await inTime(operations.get(args.id))
      const may = from.includes(before.state)
      const isDryRun = flags['dry-run']
      if (may && !isDryRun && next === undefined)
        await confirm({
          what: `Cancel the ${before.kind} ${before.id}, of which ${counted(doneOf(before), 'event')} ${doneOf(before) === 1 ? 'is' : 'are'} done`,
        })
      const changed = isDryRun ? may : await inTime(operations[call](before.id, actor()))
      const operation: Operation = isDryRun ? before : await inTime(operations.get(before.id))
      output.object({ ...(isDryRun ? { dryRun: true } : {}), changed, operation }, () => {
        if (isDryRun)
          output.line(
            changed
              ? `It is ${before.state}: the state would be changed.`
              : `It is ${before.state}: nothing would be changed.`,
          )
        writeOperation(output, operation)
      })
      if (!changed && !isDryRun) output.note(`Nothing was changed: it is ${operation.state}.`)
      if (changed && !isDryRun && next !== undefined)
        output.note(`Next: ${output.command('operations', next, operation.id)}`)
      return changed ? 0 : 1
    },
  })
}
