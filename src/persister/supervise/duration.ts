const units: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }

/** Milliseconds of a duration such as `500ms`, `60s`, `5m`, `1h` or `30` (seconds); `undefined` for anything else. */
export function parseDurationMs(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(text)
  if (match === null) return undefined
  const ms = Number(match[1]) * (units[match[2] ?? 's'] ?? 1000)
  return ms > 0 ? ms : undefined
}
