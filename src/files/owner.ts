import { readFileSync, readlinkSync } from 'node:fs'

/** How long a marker of a process that cannot be looked up counts as that of a living one. */
const FOREIGN_OWNER_MS = 60_000

/** Which process is at work on something; the boot and namespace say where its id means anything. */
export interface Owner {
  readonly pid: number
  /** Start time in clock ticks since boot, so that a reused process id is not mistaken for its former holder. */
  readonly start: string
  readonly place: string
}

function readStart(pid: number | 'self'): string | undefined {
  try {
    // The second field is the command's name in parentheses and may hold anything, so count from its end. Node has a short cut
    // for UTF-8.
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    // A zombie does no more work.
    return fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19]
  } catch {
    // No such process, or no /proc at all; the caller tells the two apart.
    return undefined
  }
}

let self: Owner | undefined

/** This process. */
export function ownOwner(): Owner {
  if (self !== undefined) return self
  let place = `${process.platform}`
  try {
    place = `${readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()} ${readlinkSync('/proc/self/ns/pid')}`
  } catch {
    // Not Linux: process ids of this machine are all there is to go by.
  }
  self = { pid: process.pid, start: readStart('self') ?? '', place }
  return self
}

/** Reads an owner out of a marker's text; `undefined` when nobody owns it. */
export function parseOwner(text: string): Owner | undefined {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value !== 'object' || value === null) return undefined
    const { pid, start, place } = value as Partial<Record<keyof Owner, unknown>>
    if (typeof pid !== 'number' || typeof start !== 'string' || typeof place !== 'string') return undefined
    return { pid, start, place }
  } catch {
    return undefined
  }
}

/** Whether an owner is still at work, as far as this process can tell; `touchedMs` is when it last said so. */
export function isAlive(owner: Owner, touchedMs: number): boolean {
  const here = ownOwner()
  if (owner.place !== here.place) return Date.now() - touchedMs < FOREIGN_OWNER_MS
  if (here.start !== '') return readStart(owner.pid) === owner.start
  try {
    process.kill(owner.pid, 0)
    return true
  } catch {
    return false
  }
}
