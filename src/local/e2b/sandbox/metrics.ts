import { statfs } from 'node:fs/promises'
import { availableParallelism, freemem, totalmem } from 'node:os'
import type { Jail } from '../jail/jail.js'

/** One sample of a sandbox, with the field names of E2B's API; sizes in bytes. */
export interface Metric {
  readonly timestamp: string
  readonly timestampUnix: number
  readonly cpuCount: number
  /** Of one processor being busy all the time, times 100. */
  readonly cpuUsedPct: number
  readonly memUsed: number
  readonly memTotal: number
  readonly memCache: number
  readonly diskUsed: number
  readonly diskTotal: number
}

/** What every sandbox is said to have: it shares this machine with all others. */
export const CPU_COUNT = availableParallelism()
export const MEMORY_MB = Math.floor(totalmem() / 2 ** 20)

const SAMPLE_EVERY_MS = 5_000
const KEEP_SAMPLES = 720

/** Samples a jail every five seconds, as E2B does, and keeps the last hour. */
export class Metrics {
  readonly #jail: Jail
  readonly #rootFolder: string
  readonly #samples: Metric[] = []
  readonly #timer: NodeJS.Timeout
  #last: { cpuSeconds: number; at: number } | undefined

  constructor(jail: Jail, rootFolder: string) {
    this.#jail = jail
    this.#rootFolder = rootFolder
    // A sample that fails because the jail is just going is one sample less.
    this.#timer = setInterval(() => void this.sample().catch(() => {}), SAMPLE_EVERY_MS)
    this.#timer.unref()
  }

  /** The samples so far. */
  get samples(): readonly Metric[] {
    return this.#samples
  }

  async sample(): Promise<void> {
    const [{ cpuSeconds, memoryBytes }, disk] = await Promise.all([
      this.#jail.usage(),
      statfs(this.#rootFolder),
    ])
    const now = Date.now()
    const before = this.#last ?? { cpuSeconds, at: now }
    const spanSeconds = (now - before.at) / 1000
    this.#last = { cpuSeconds, at: now }
    const used = spanSeconds > 0 ? Math.max(0, cpuSeconds - before.cpuSeconds) / spanSeconds : 0
    this.#samples.push({
      timestamp: new Date(now).toISOString(),
      timestampUnix: Math.floor(now / 1000),
      cpuCount: CPU_COUNT,
      cpuUsedPct: Math.round(used * 10_000) / 100,
      memUsed: memoryBytes,
      memTotal: totalmem(),
      memCache: Math.max(0, totalmem() - freemem() - memoryBytes),
      diskUsed: (disk.blocks - disk.bfree) * disk.bsize,
      diskTotal: disk.blocks * disk.bsize,
    })
    if (this.#samples.length > KEEP_SAMPLES) this.#samples.shift()
  }

  stop(): void {
    clearInterval(this.#timer)
  }
}
