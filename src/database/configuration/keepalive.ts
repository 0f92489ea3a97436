/** How long a connection is idle before the client sends keepalive probes. The system then sends ten, one second apart. */
export const clientKeepaliveMs = 10_000

/**
 * Settings of the server for each connection of the bus: the session of a process that has died or is disconnected ends
 * within half a minute, and releases its locks. `tcp_user_timeout` covers answers that are never acknowledged, for
 * which no keepalive is sent. A setting that the server's system does not support has no effect. In seconds, except the
 * last one, which is in milliseconds.
 */
export const keepaliveSettings = {
  // Seconds, and the last one milliseconds, in the form that the server reports.
  tcp_keepalives_idle: '15',
  tcp_keepalives_interval: '5',
  tcp_keepalives_count: '3',
  tcp_user_timeout: '30000',
} as const
