import { readdir, readFile } from 'node:fs/promises'
import type { Usage } from './jail.js'

/** Linux reports times in this unit to programs on every architecture Node runs on. */
const TICKS_PER_SECOND = 100
const PAGE_BYTES = 4096

/** Adds up what the processes listed in a /proc use. Those that end meanwhile count for nothing. */
export async function addUsage(procFolder: string): Promise<Usage> {
  const pids = (await readdir(procFolder)).filter((name) => /^\d+$/.test(name))
  return sumUsage(procFolder, pids.map(Number))
}

/** Adds up what the given processes use. */
export async function sumUsage(procFolder: string, pids: readonly number[]): Promise<Usage> {
  let cpuSeconds = 0
  let memoryBytes = 0
  for (const pid of pids) {
    const fields = await readStat(procFolder, pid)
    if (fields === undefined) continue
    cpuSeconds += (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
    memoryBytes += Number(fields[21]) * PAGE_BYTES
  }
  return { cpuSeconds, memoryBytes }
}

/** The fields of /proc/PID/stat after the name, state first; undefined when the process is gone. See proc(5). */
export async function readStat(procFolder: string, pid: number): Promise<string[] | undefined> {
  try {
    const text = await readFile(`${procFolder}/${pid}/stat`, 'latin1')
    return text.slice(text.lastIndexOf(')') + 2).split(' ')
  } catch {
    // Whatever the errno (ENOENT, ESRCH, EACCES): there is nothing to be learnt about this one.
    return undefined
  }
}
