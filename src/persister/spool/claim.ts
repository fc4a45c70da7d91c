import { link, open, rename, rm, stat } from 'node:fs/promises'
import { nextTimestamp } from '../../protocol/key.js'
import { spoolFileName } from '../../protocol/spool-layout.js'
import { systemCode } from '../fs-error.js'

/** How far a key may move on before something must be wrong: a day of one name, stored every second. */
const MAX_MOVES = 86_400

/** A name in a task's folder that is now this body's and nobody else's. */
export interface Claim {
  readonly timestamp: string
  /** File name in the task's folder. */
  readonly file: string
}

/**
 * Moves a staged body to its final name, at the given timestamp or as many seconds later as it takes to find a free one.
 * Taking the name and filling it are one step, so that a name that is taken holds a whole body.
 */
export async function claimName(
  folder: string,
  temporary: string,
  timestamp: string,
  name: string,
): Promise<Claim> {
  let at = timestamp
  for (let moves = 0; moves < MAX_MOVES; moves++) {
    const file = spoolFileName(at, name)
    if (await takeName(temporary, `${folder}/${file}`)) return { timestamp: at, file }
    at = nextTimestamp(at)
  }
  throw new Error(`no free name for ${name} in a day's worth of seconds`)
}

/** False when the name is taken. */
async function takeName(temporary: string, path: string): Promise<boolean> {
  try {
    await link(temporary, path)
  } catch (error) {
    const code = systemCode(error)
    if (code === 'EEXIST') return false
    if (
      code === 'EPERM' ||
      code === 'ENOTSUP' ||
      code === 'EOPNOTSUPP' ||
      code === 'ENOSYS' ||
      code === 'EMLINK'
    ) {
      return await takeNameWithoutLinks(temporary, path)
    }
    throw error
  }
  await rm(temporary)
  return true
}

/** For file systems without hard links: an empty placeholder claims the name, the body then replaces it. */
async function takeNameWithoutLinks(temporary: string, path: string): Promise<boolean> {
  try {
    await (await open(path, 'wx', 0o644)).close()
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return false
    throw error
  }
  await rename(temporary, path)
  return true
}

/** Takes a further name for a body that already has one; true also when an earlier attempt at the same took it. */
export async function takeFurtherName(path: string, further: string): Promise<boolean> {
  try {
    await link(path, further)
    return true
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error
    const [a, b] = await Promise.all([stat(path), stat(further)])
    return a.ino === b.ino && a.dev === b.dev
  }
}
