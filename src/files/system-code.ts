/** The system's own code of an error (`ENOENT`, `ECONNRESET`), or `undefined` when it has none. */
export function systemCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined
  return typeof error.code === 'string' ? error.code : undefined
}
