import { readdir, readFile, readlink } from 'node:fs/promises'

/** Processes whose environment has a mark, one line each. Linux only; elsewhere there are none to be seen. */
export async function markedProcesses(mark: string, except: ReadonlySet<number>): Promise<string[]> {
  const found: string[] = []
  for (const pid of await readdir('/proc').catch(() => [])) {
    if (!/^\d+$/.test(pid) || except.has(Number(pid)) || Number(pid) === process.pid) continue
    try {
      const environment = await readFile(`/proc/${pid}/environ`, 'latin1')
      if (!environment.includes(mark)) continue
      const command = (await readFile(`/proc/${pid}/cmdline`, 'utf8')).replaceAll('\0', ' ').trim()
      found.push(`process ${pid}: ${command.slice(0, 120)} in ${await readlink(`/proc/${pid}/cwd`)}`)
    } catch {
      // It ended while it was looked at.
    }
  }
  return found
}
