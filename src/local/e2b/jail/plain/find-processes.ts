import { readdir, readFile, readlink } from 'node:fs/promises'
import { readStat } from '../process-usage.js'
import { runTool } from '../run-tool.js'

/** How to tell a sandbox's processes from all others of this machine. */
export interface Family {
  /** An entry of their environment, `NAME=value`; none on systems without /proc. */
  readonly marker: string
  /** A folder they may work in that nobody else uses. */
  readonly folder: string
  /** Sessions started for the sandbox, and whether the first process of each still runs; their members' descendants belong too. */
  readonly leaders: Map<number, 'running' | 'ended'>
}

interface Seen {
  readonly pid: number
  readonly parent: number
  readonly group: number
  readonly session: number
}

/** All living processes of a sandbox, also those that have left their parent, their session, or forgotten their environment. */
export async function findProcesses(family: Family): Promise<number[]> {
  const all = process.platform === 'linux' ? await readProc() : await readPs()
  forgetReused(family.leaders, all)
  const members = new Set(family.leaders.keys())
  for (const { pid } of all) {
    if (process.platform === 'linux' && (await isMarked(pid, family))) members.add(pid)
  }
  for (let before = -1; before !== members.size; ) {
    before = members.size
    for (const { pid, parent, group, session } of all) {
      if (members.has(parent) || members.has(group) || members.has(session)) members.add(pid)
    }
  }
  members.delete(process.pid)
  return all.filter(({ pid }) => members.has(pid)).map(({ pid }) => pid)
}

/** A number whose process has ended and that now belongs to another is not the sandbox's any more. */
function forgetReused(leaders: Family['leaders'], all: readonly Seen[]): void {
  for (const [leader, state] of leaders) {
    const inUse = all.some(({ group, session }) => group === leader || session === leader)
    if (state === 'ended' && (!inUse || all.some(({ pid }) => pid === leader))) leaders.delete(leader)
  }
}

async function isMarked(pid: number, { marker, folder }: Family): Promise<boolean> {
  try {
    const environ = await readFile(`/proc/${pid}/environ`, 'utf8')
    if (environ.split('\0').includes(marker)) return true
    const cwd = await readlink(`/proc/${pid}/cwd`)
    return cwd === folder || cwd.startsWith(`${folder}/`)
  } catch {
    // Gone, or another user's: not ours either way.
    return false
  }
}

async function readProc(): Promise<Seen[]> {
  const seen: Seen[] = []
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue
    const fields = await readStat('/proc', Number(name))
    // A zombie is dead; it only waits for its parent to notice.
    if (fields === undefined || fields[0] === 'Z' || fields[0] === 'X') continue
    const [, parent, group, session] = fields
    seen.push({ pid: Number(name), parent: Number(parent), group: Number(group), session: Number(session) })
  }
  return seen
}

async function readPs(): Promise<Seen[]> {
  const table = await runTool('ps', ['-A', '-o', 'pid=,ppid=,pgid=,stat='])
  return table
    .trim()
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter(([, , , state]) => state?.startsWith('Z') === false)
    .map(([pid, parent, group]) => ({
      pid: Number(pid),
      parent: Number(parent),
      group: Number(group),
      session: Number(group),
    }))
}
