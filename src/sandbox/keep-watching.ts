import { isConductorError } from '../errors.js'
import type { RemoteSandbox } from './remote-sandbox.js'

/** Before a watch that ended is taken up again, */
const FIRST_WAIT_MS = 200
/** and at most, as long as the sandbox is paused or cannot be reached. */
const LONGEST_WAIT_MS = 5_000

/**
 * Watches a folder like {@link RemoteSandbox.watch}, again each time its connection broke or the sandbox was paused and resumed,
 * until the returned function is called or the sandbox is gone. What happens in between is not told.
 */
export async function keepWatching(
  sandbox: RemoteSandbox,
  folder: string,
  onChange: (fileName: string) => void,
): Promise<() => Promise<void>> {
  let ended = false
  let timer: NodeJS.Timeout | undefined
  let waitMs = FIRST_WAIT_MS
  let beganMs = 0
  const watch = async (): Promise<() => Promise<void>> => {
    const stop = await sandbox.watch(folder, onChange, {
      onEnd: () => {
        // One that breaks as soon as it is there must not be taken up without pause.
        if (performance.now() - beganMs > LONGEST_WAIT_MS) waitMs = FIRST_WAIT_MS
        againLater()
      },
    })
    beganMs = performance.now()
    return stop
  }
  const again = async (): Promise<() => Promise<void>> => {
    try {
      return await watch()
    } catch (error) {
      if (!isConductorError(error)) throw error
      if (error.code !== 'SANDBOX_GONE') againLater()
      return async () => {}
    }
  }
  const againLater = (): void => {
    if (ended) return
    timer = setTimeout(() => {
      watching = again()
    }, waitMs)
    timer.unref()
    waitMs = Math.min(2 * waitMs, LONGEST_WAIT_MS)
  }
  let watching = Promise.resolve(await watch())
  return async () => {
    ended = true
    clearTimeout(timer)
    const stop = await watching
    await stop()
  }
}
