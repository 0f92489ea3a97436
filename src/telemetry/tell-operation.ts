import { errorTypeOf } from '../foundation/error-type.ts'
import type { ClientOperation, Recorder } from './recorder.ts'

/** The span of an operation. */
export interface OperationSpan<T> {
  readonly run: <R>(work: () => R) => R
  readonly end: (result: T) => void
  readonly fail: (thrown: unknown, errorType: string) => void
}

/** What is done, as the recorder is told of it. */
export interface ToldOperation {
  readonly operation: ClientOperation
  readonly type?: string | undefined
  readonly subscription?: string | undefined
}

/**
 * Does an operation in its span, where it has one, and measures it. Settles like the operation.
 *
 * @param onEnd - called with the type of its error
 */
export async function tellOperation<T>(
  recorder: Recorder,
  { operation, type, subscription }: ToldOperation,
  span: OperationSpan<T> | undefined,
  work: () => Promise<T>,
  onEnd?: (errorType: string | undefined) => void,
): Promise<T> {
  const startedAt = performance.now()
  let errorType: string | undefined
  try {
    const result = await (span === undefined ? work() : span.run(work))
    span?.end(result)
    return result
  } catch (thrown) {
    errorType = errorTypeOf(thrown)
    span?.fail(thrown, errorType)
    throw thrown
  } finally {
    recorder.operation(operation, type, subscription, (performance.now() - startedAt) / 1000, errorType)
    onEnd?.(errorType)
  }
}
