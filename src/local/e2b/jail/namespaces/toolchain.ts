import { access, realpath } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { errnoOf } from '../../request-error.js'
import { runTool } from '../run-tool.js'

/** Folders with the `node` and `python3` that the server's user has, for sandboxes to see read-only. */
export interface Toolchain {
  /** Existing paths on this machine, none within another or in /usr. */
  readonly folders: readonly string[]
  /** For the front of PATH. */
  readonly path: readonly string[]
}

const PYTHON =
  'import os, sys\nprint("\\n".join([os.path.dirname(sys.executable), sys.prefix, sys.base_prefix]))'

/** Finds out where the interpreters live. One that is not there is not offered. */
export async function findToolchain(): Promise<Toolchain> {
  const node = await realpath(process.execPath)
  const [pythonBin, ...pythonPrefixes] = await askPython()
  const bins = [dirname(node), ...(pythonBin === undefined ? [] : [pythonBin])]
  const folders = new Set<string>()
  for (const prefix of [dirname(dirname(node)), ...pythonPrefixes]) {
    if (!withinUsr(prefix) && (await looksLikePrefix(prefix))) folders.add(prefix)
  }
  // An executable that lies loose, for instance in a home folder, comes alone: what is around it is private.
  if (!withinUsr(node) && ![...folders].some((folder) => node.startsWith(`${folder}/`))) folders.add(node)
  return {
    folders: [...folders].filter((one) => ![...folders].some((other) => one.startsWith(`${other}/`))),
    path: [...new Set(bins.filter((bin) => !withinUsr(bin)))],
  }
}

async function askPython(): Promise<string[]> {
  try {
    return (await runTool('python3', ['-c', PYTHON])).trim().split('\n')
  } catch (error) {
    // Not installed, or a version manager's stand-in with nothing behind it: sandboxes then have no python3 either.
    if (errnoOf(error) === 'ENOENT' || (error instanceof Error && 'stderr' in error)) return []
    throw error
  }
}

async function looksLikePrefix(prefix: string): Promise<boolean> {
  if (prefix === '/' || `${homedir()}/`.startsWith(`${prefix}/`)) return false
  for (const part of ['bin', 'lib']) {
    try {
      await access(join(prefix, part))
    } catch (error) {
      if (errnoOf(error) !== undefined) return false
      throw error
    }
  }
  return true
}

function withinUsr(path: string): boolean {
  return path === '/usr' || ['/usr/', '/bin/', '/opt/'].some((top) => path.startsWith(top)) || path === '/bin'
}
