import { ConfigurationError } from '../../foundation/errors.ts'
import type { Flags } from './flags.ts'

/** Options of the API whose flags have other names. */
const flagsOfOptions: Readonly<Record<string, readonly string[]>> = {
  ...{ expiresAt: ['until'], expiresInSeconds: ['until'], availableIn: ['in'], replayId: ['replay'] },
  ...{ tenantId: ['tenant'], correlationId: ['correlation'], causationId: ['causation'] },
  ...{ eventId: ['event-id', 'event'], orderingKey: ['ordering-key', 'key'], operationId: ['operation'] },
  ...{ fingerprint: ['group'], pattern: ['type'], subscriptions: ['subscription'] },
}

/** Those of the configuration, which a command may have a flag of the same name for. */
const ofConfiguration = ['source']

/**
 * An error about an option of the API, which speaks of the flag of the command that it was given with; any other error as it is. The one place
 * that knows which is which.
 *
 * @param flags - those of the command
 */
export function inFlags(error: unknown, flags: Flags): unknown {
  if (!(error instanceof ConfigurationError) || error.code !== 'BUS_INVALID_OPTION') return error
  let example: string | undefined
  const message = error.message.replaceAll(
    /`([A-Za-z]+)(?:\.([A-Za-z]+))?`/g,
    (whole, option: string, part) => {
      const flag = flagOf(option, flags)
      if (flag === undefined) return whole
      example ??= flags[flag]?.example
      return typeof part === 'string' ? `\`${part}\` of --${flag}` : `--${flag}`
    },
  )
  if (message === error.message) return error
  const { code, option } = error
  return new ConfigurationError(
    code,
    `${message}${example === undefined ? '' : `. For example: ${example}`}`,
    {
      ...{ option, cause: error },
    },
  )
}

function flagOf(option: string, flags: Flags): string | undefined {
  if (ofConfiguration.includes(option)) return undefined
  const same = option.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
  return [...(flagsOfOptions[option] ?? []), same].find((name) => Object.hasOwn(flags, name))
}
