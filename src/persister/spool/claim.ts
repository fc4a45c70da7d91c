import { linkSync, renameSync, statSync } from 'node:fs'
import { basename } from 'node:path'
import { createText, removeFile } from '../../files/disk.js'
import { systemCode } from '../../files/system-code.js'
import { nextTimestamp } from '../../protocol/key.js'
import { spoolFileName } from '../../protocol/spool-layout.js'
import { isClaimedElsewhere } from './claims-elsewhere.js'

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
export function claimName(folder: string, temporary: string, timestamp: string, name: string): Claim {
  let at = timestamp
  for (let moves = 0; moves < MAX_MOVES; moves++) {
    const file = spoolFileName(at, name)
    const isFree = !isClaimedElsewhere(basename(folder), file)
    if (isFree && takeName(temporary, `${folder}/${file}`)) return { timestamp: at, file }
    at = nextTimestamp(at)
  }
  throw new Error(`no free name for ${name} in a day's worth of seconds`)
}

/** False when the name is taken. */
function takeName(temporary: string, path: string): boolean {
  try {
    linkSync(temporary, path)
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
      return takeNameWithoutLinks(temporary, path)
    }
    throw error
  }
  removeFile(temporary)
  return true
}

/** For file systems without hard links: an empty placeholder claims the name, the body then replaces it. */
function takeNameWithoutLinks(temporary: string, path: string): boolean {
  if (!createText(path, '')) return false
  renameSync(temporary, path)
  return true
}

/** Takes a further name for a body that already has one; true also when an earlier attempt at the same took it. */
export function takeFurtherName(path: string, further: string): boolean {
  try {
    linkSync(path, further)
    return true
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error
    const [a, b] = [statSync(path), statSync(further)]
    return a.ino === b.ino && a.dev === b.dev
  }
}
