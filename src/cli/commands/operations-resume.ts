import { steeringCommand } from '../views/steer-operation.ts'

export const operationsResume = steeringCommand({
  ...{ name: 'resume', call: 'resume', from: ['paused', 'stopped'], next: 'show' },
  what: 'goes on with it',
  note: 'For one that was held, or has stopped by itself.',
})
