import { createInterface } from 'node:readline/promises'
import { UsageError } from './usage-error.js'

/** Asks before something is destroyed; true goes ahead. Where nobody can be asked, `--yes` must have been said. */
export async function confirm(what: string, yes: boolean | undefined, signal: AbortSignal): Promise<boolean> {
  if (yes === true) return true
  if (!process.stdin.isTTY || !process.stderr.isTTY) {
    throw new UsageError(`${what}: say --yes, since nobody can be asked here`)
  }
  const lines = createInterface({ input: process.stdin, output: process.stderr })
  try {
    return /^y(es)?$/i.test((await lines.question(`${what}? [y/N] `, { signal })).trim())
  } finally {
    lines.close()
  }
}
