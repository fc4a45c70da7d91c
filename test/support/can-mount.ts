import { execFileSync } from 'node:child_process'

/** Whether this process can have small and read-only disks: mounts need a namespace of their own. */
export const canMount = (() => {
  try {
    execFileSync('unshare', ['-rm', 'true'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
})()
