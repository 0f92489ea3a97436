import type { AttemptFailure } from '../../delivery/attempts/failure.ts'

/** What a tenant sees of something that has failed: everything but the stack traces. */
export function withoutStacks<T extends { readonly failures: readonly AttemptFailure[] }>(given: T): T {
  return { ...given, failures: given.failures.map(({ stack: _hidden, ...failure }) => failure) }
}
