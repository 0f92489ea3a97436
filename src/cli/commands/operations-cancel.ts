import { steeringCommand } from '../views/steer-operation.ts'

export const operationsCancel = steeringCommand({
  ...{ name: 'cancel', call: 'cancel', from: ['running', 'paused', 'stopped'], next: undefined },
  what: 'ends it before it is done',
  note: 'What it has done so far stays; events of a replay that have not begun are dropped. It cannot be resumed.',
})
