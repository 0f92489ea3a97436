/** How long a connection is idle before this end asks whether the other is there. The system then asks each second, ten times. */
export const clientKeepaliveMs = 10_000

/**
 * What the server is told of each connection of the bus: the session of a process that is gone, or cut off, ends after
 * half a minute, and its locks with it. `tcp_user_timeout` is for answers that are never acknowledged, for which no
 * keepalive is sent. Where the server's system lacks one of them, setting it does nothing. Seconds, the last in milliseconds.
 */
export const keepaliveSettings = {
  // Seconds, and the last in milliseconds, as the server shows them.
  tcp_keepalives_idle: '15',
  tcp_keepalives_interval: '5',
  tcp_keepalives_count: '3',
  tcp_user_timeout: '30000',
} as const
