import { execFileSync } from 'node:child_process'

/** Whether this process can have small and read-only disks: mounts need a namespace of their own. CI's has to. */
export const canMount = (() => {
  try {
    execFileSync('unshare', ['-rm', 'true'], { stdio: 'ignore' })
    return true
  } catch (error) {
    if (process.env.CI) throw new Error('CI must be able to mount: unshare -rm', { cause: error })
    return false
  }
})()
