import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ConductorError } from '../../../errors.js'

/**
 * Claims a folder for this process and returns how to give it back; a claim of a process that is gone is taken over.
 * Rejects with `EXISTS` while another one holds it: two servers over the same files would not see each other's writes.
 */
export async function lockFolder(folder: string): Promise<() => Promise<void>> {
  const path = join(folder, 'lock')
  const mine = await identify(process.pid)
  for (;;) {
    try {
      await writeFile(path, mine, { flag: 'wx' })
      return () => rm(path, { force: true })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    }
    const holder = await readFile(path, 'utf8').catch(() => '')
    const pid = Number.parseInt(holder, 10)
    if (pid > 0 && isRunning(pid) && (await identify(pid)) === holder) {
      throw new ConductorError('EXISTS', `The data folder ${folder} is in use by process ${pid}.`)
    }
    await rm(path, { force: true })
  }
}

/** A process id with its start time where the system tells it, since process ids are used again. */
async function identify(pid: number): Promise<string> {
  // Not Linux, or gone: the id alone has to do.
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
  // The command in brackets may hold spaces; the start time is the 20th field after it.
  const startTime = stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
  return startTime === undefined ? String(pid) : `${pid} ${startTime}`
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
