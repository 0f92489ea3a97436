import type { Socket } from 'node:net'
import type { BusClient } from '../../database/bus-client.ts'
import { found } from '../check/finding.ts'
import type { Check } from '../check/check.ts'

/** Whether payloads and passwords cross a network in the clear. */
export const encryptionCheck: Check = {
  name: 'encryption of the connection',
  needs: 'server',
  async run({ database }) {
    const session = await database.openSession()
    try {
      const { encrypted, remoteAddress } = streamOf(session)
      if (encrypted === true || isOwnMachine(remoteAddress)) return []
      return [
        found(
          'not-encrypted',
          `The connection to ${remoteAddress} is not encrypted: who can listen on the network reads the payloads of events`,
          'Add sslmode=verify-full to the URL, with sslrootcert=… for an authority of your own.',
          { address: remoteAddress },
        ),
      ]
    } finally {
      void session.end().catch(() => {})
    }
  },
}

function streamOf({ connection }: BusClient): Partial<Socket> & { readonly encrypted?: boolean } {
  return connection.stream as unknown as Partial<Socket>
}

/** A socket of the file system has no address. */
function isOwnMachine(address: string | undefined): address is undefined {
  return address === undefined || /^(?:127\.|::1$|::ffff:127\.)/.test(address)
}
