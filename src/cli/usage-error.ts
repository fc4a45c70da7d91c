/** Wrong usage: shown in one line, exit code 2. */
export class UsageError extends Error {}
