/** It cannot be run as asked: the message is for the person who called it. */
export class UsageError extends Error {}
