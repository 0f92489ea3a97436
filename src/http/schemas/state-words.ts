/** The words that several schemas have. The compiler compares them with the types that they are of. */
export const deliveryStates = [
  ...(['waiting', 'delivering', 'retrying', 'delivered', 'expired', 'erased', 'discarded', 'dead'] as const),
] as const

export const operationKinds = ['redrive', 'discard', 'replay', 'catch-up', 'remove'] as const

export const operationStates = ['running', 'paused', 'stopped', 'done', 'cancelled'] as const
