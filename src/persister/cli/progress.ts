import { fstatSync } from 'node:fs'
import { nowMs } from '../clock.js'
import { lenient } from './output.js'

const QUIET_FOR_MS = 1000
const EVERY_MS = 500

/** Shows on a terminal how far a long upload is. */
export interface Progress {
  readonly sent: (bytes: number) => void
  end(): void
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`
}

function isTerminal(): boolean {
  // Asking the file first saves making a stream for the many that are none.
  return fstatSync(2).isCharacterDevice() && process.stderr.isTTY
}

/** Starts counting; nothing is shown in the first second, nor anywhere but on a terminal. */
export function startProgress(label: string, sizeBytes: number | undefined, quiet: boolean): Progress {
  if (quiet || !isTerminal()) return { sent: () => {}, end: () => {} }
  const startedMs = nowMs()
  let sentBytes = 0
  let shown = false
  const timer = setInterval(() => {
    if (nowMs() - startedMs < QUIET_FOR_MS) return
    shown = true
    const state =
      sentBytes === 0
        ? 'reading'
        : sizeBytes === undefined || sizeBytes === 0
          ? `sent ${megabytes(sentBytes)}`
          : `sent ${megabytes(sentBytes)} of ${megabytes(sizeBytes)} (${Math.min(100, Math.floor((100 * sentBytes) / sizeBytes))} %)`
    lenient(process.stderr).write(`\r\x1b[Kpersist-result: ${label}: ${state}`)
  }, EVERY_MS)
  return {
    sent: (bytes) => {
      sentBytes += bytes
    },
    end: () => {
      clearInterval(timer)
      if (shown) process.stderr.write('\r\x1b[K')
    },
  }
}
