import { setTimeout as pause } from 'node:timers/promises'
import type { SourceContext } from '../receiving/source.ts'
import type { AwsCalls } from './aws-calls.ts'
import { entryError } from './aws-errors.ts'
import type { SqsMessage } from './sqs-message.ts'

interface SqsHoldParts {
  readonly calls: AwsCalls<'DeleteMessageBatch' | 'ChangeMessageVisibilityBatch'>
  readonly QueueUrl: string
  readonly visibilitySeconds: number
  readonly context: SourceContext
}

/** Up to ten messages that were fetched: hidden from other receivers until one of the functions is called. Neither rejects. */
interface SqsHold {
  /** Deletes the messages. One that cannot be deleted comes again, and is known by its id. */
  readonly remove: () => Promise<void>
  /** Lets other receivers have the messages at once. */
  readonly giveBack: () => Promise<void>
}

/** Times that a request to delete is made. */
const maxTries = 3

/** How long `giveBack` may take: it only spares waiting for the visibility timeout. */
const giveBackMs = 2000

export function createSqsHold(parts: SqsHoldParts, messages: readonly SqsMessage[]): SqsHold {
  const { calls, QueueUrl, visibilitySeconds, context } = parts
  let isExtending = false
  const timer = setInterval(() => void extend(), (visibilitySeconds * 1000) / 3)

  async function setVisibility(VisibilityTimeout: number, signal: AbortSignal): Promise<void> {
    const Entries = entriesOf(messages).map((entry) => ({ ...entry, VisibilityTimeout }))
    const failed = failuresOf(await calls.call('ChangeMessageVisibilityBatch', { QueueUrl, Entries }, signal))
    const [first] = failed
    if (first !== undefined) throw entryError(first.Code, first.Message)
  }

  async function extend(): Promise<void> {
    if (isExtending) return
    isExtending = true
    try {
      await setVisibility(visibilitySeconds, context.signal)
    } catch (error) {
      context.reportFailure(error)
    } finally {
      isExtending = false
    }
  }

  /** The entries that may be deleted by another try. */
  async function removeOnce(entries: readonly Entry[]): Promise<readonly Entry[]> {
    const input = { QueueUrl, Entries: entries }
    const failed = failuresOf(await calls.call('DeleteMessageBatch', input, context.signal))
    const forGood = failed.find(({ SenderFault }) => SenderFault === true)
    if (forGood !== undefined) context.reportFailure(entryError(forGood.Code, forGood.Message))
    return entries.filter(({ Id }) => failed.some((each) => each.Id === Id && each.SenderFault !== true))
  }

  return {
    async remove() {
      clearInterval(timer)
      let left: readonly Entry[] = entriesOf(messages)
      for (let tries = 1; left.length > 0; tries += 1) {
        try {
          left = await removeOnce(left)
        } catch (error) {
          context.reportFailure(error)
        }
        if (tries === maxTries || context.signal.aborted) return
        if (left.length > 0) await pause(200 * tries)
      }
    },
    async giveBack() {
      clearInterval(timer)
      await setVisibility(0, AbortSignal.timeout(giveBackMs)).catch(() => {})
    },
  }
}

interface Entry {
  readonly Id: string
  readonly ReceiptHandle: string | undefined
}

function entriesOf(messages: readonly SqsMessage[]): Entry[] {
  return messages.map(({ ReceiptHandle }, index) => ({ Id: String(index), ReceiptHandle }))
}

interface Failed {
  readonly Id?: string
  readonly Code?: string
  readonly Message?: string
  readonly SenderFault?: boolean
}

function failuresOf(answer: unknown): readonly Failed[] {
  return (answer as { readonly Failed?: readonly Failed[] } | undefined)?.Failed ?? []
}
