import { readdir, readFile } from 'node:fs/promises'

/** Processes that descend from one, as seen so far. */
export interface Descendants {
  readonly count: number
  /** Command names of those that still run, also when their parents are gone. */
  alive(): Promise<readonly string[]>
  stop(): void
}

interface ProcessStat {
  readonly pid: number
  readonly parent: number
  readonly command: string
  /** With the id unique: ids are used again. */
  readonly startTime: string
}

/**
 * Watches what a process starts, directly or not; a process that outlives its parent stays known. Reads `/proc`, of each process
 * once: whose child it was when it was first seen does not change to the better.
 */
export function watchDescendants(ancestor: number): Descendants {
  const seen = new Map<number, ProcessStat>()
  let known: ReadonlySet<number> = new Set()
  const look = async (): Promise<void> => {
    const ids = await listIds()
    const fresh = ids.filter((pid) => !known.has(pid))
    known = new Set(ids)
    const parents = new Set([ancestor, ...seen.keys()])
    for (const process of await readStats(fresh)) {
      if (!parents.has(process.parent)) continue
      parents.add(process.pid)
      seen.set(process.pid, process)
    }
  }
  const timer = setInterval(() => void look(), 50)
  return {
    get count() {
      return seen.size
    },
    alive: async () => {
      const running = new Map((await readStats([...seen.keys()])).map((process) => [process.pid, process]))
      return [...seen.values()]
        .filter(({ pid, startTime }) => running.get(pid)?.startTime === startTime)
        .map(({ pid, command }) => `${command} (${pid})`)
    },
    stop: () => clearInterval(timer),
  }
}

/** Of all processes, parents before children wherever ids grow. */
async function listIds(): Promise<number[]> {
  const ids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number)
  return ids.sort((a, b) => a - b)
}

/** Of those that are there, and no zombies. */
async function readStats(ids: readonly number[]): Promise<ProcessStat[]> {
  const stats = await Promise.all(ids.map(readStat))
  return stats.filter((stat) => stat !== undefined)
}

async function readStat(pid: number): Promise<ProcessStat | undefined> {
  try {
    const line = await readFile(`/proc/${pid}/stat`, 'utf8')
    // The command is in brackets and may hold spaces and brackets itself.
    const end = line.lastIndexOf(')')
    const [state, parent, ...rest] = line.slice(end + 2).split(' ')
    if (state === 'Z') return undefined
    const command = line.slice(line.indexOf('(') + 1, end)
    return { pid, parent: Number(parent), command, startTime: rest[17] ?? '' }
  } catch {
    // It has ended since its id was listed.
    return undefined
  }
}
