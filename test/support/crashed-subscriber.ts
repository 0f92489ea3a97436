/** A subscription to be crashed in a process of its own: it remembers in memory what it has done, and writes an `x` to a file. */
import { appendFileSync } from 'node:fs'
import { paymentEvents } from './catalogue.ts'

const file = new URL(import.meta.url).searchParams.get('file') ?? ''
const done = new Set<string>()

export const events = paymentEvents
export const subscription = {
  name: 'remembers',
  events: ['payment.paid'],
  handler: ({ id }: { id: string }): void => {
    if (done.has(id)) return
    done.add(id)
    appendFileSync(file, 'x')
  },
}
