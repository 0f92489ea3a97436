import { BusError } from '../../src/index.ts'

/** The typed error that some work is refused with. @throws when it is not refused, or with another kind of error */
export async function refusalOf(work: () => unknown): Promise<BusError> {
  try {
    await work()
  } catch (error) {
    if (error instanceof BusError) return error
    throw new Error('Expected a BusError', { cause: error })
  }
  throw new Error('Expected a refusal')
}
