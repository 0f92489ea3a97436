/** The command cannot be run as requested. The message is for the person who invoked it. */
export class UsageError extends Error {}
