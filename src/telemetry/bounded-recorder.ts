import { otherErrorType } from '../foundation/error-type.ts'
import { noRecorder, type Recorder } from './recorder.ts'

/** Different types of errors, and of events, that the metrics of a process tell apart. Each is a time series for good. */
const maxErrorTypes = 100
const maxEventTypes = 1000

/**
 * Passes on what it is told, with `_OTHER` in place of types beyond so many different ones: handlers may throw anything, and plain SQL may
 * publish events of any type.
 */
export function boundedRecorder(recorder: Recorder): Recorder {
  if (recorder === noRecorder) return recorder
  const errorTypes = boundedNames(maxErrorTypes)
  const eventTypes = boundedNames(maxEventTypes)
  return {
    get isOn() {
      return recorder.isOn
    },
    operation(operation, type, subscription, seconds, errorType) {
      if (!recorder.isOn) return
      recorder.operation(operation, eventTypes(type), subscription, seconds, errorTypes(errorType))
    },
    sent(type, count, errorType) {
      if (recorder.isOn) recorder.sent(eventTypes(type), count, errorTypes(errorType))
    },
    attempt(type, subscription, seconds, waitSeconds, errorType) {
      if (!recorder.isOn) return
      recorder.attempt(eventTypes(type), subscription, seconds, waitSeconds, errorTypes(errorType))
    },
    expired(type, subscription) {
      if (recorder.isOn) recorder.expired(eventTypes(type), subscription)
    },
    dead: (subscription, count) => recorder.dead(subscription, count),
    redriven: (subscription, count) => recorder.redriven(subscription, count),
  }
}

/** Returns a function that returns names as they are, up to so many different ones, and `_OTHER` for all others. */
function boundedNames(
  maxCount: number,
): <N extends string | undefined>(name: N) => N | typeof otherErrorType {
  const known = new Set<string | undefined>([undefined])
  return (name) => {
    if (known.has(name)) return name
    if (known.size > maxCount) return otherErrorType
    known.add(name)
    return name
  }
}
