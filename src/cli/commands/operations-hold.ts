import { steeringCommand } from '../views/steer-operation.ts'

export const operationsHold = steeringCommand({
  ...{ name: 'hold', call: 'pause', from: ['running'], next: 'resume' },
  what: 'no further part of it begins',
  note: 'What it has done so far stays, and is delivered.',
})
