import { ConductorError } from '../errors.js'
import { joinSignals } from '../signals.js'
import { untilAborted } from '../until-aborted.js'
import type { CommandOptions, CommandOutcome, RemoteSandbox, RunningCommand } from './remote-sandbox.js'

/** The process that is ended may be one that does not react. */
const END_LIMIT_MS = 5_000

/** What a command may take. */
export interface RunBounds {
  /** Of all it prints together, in bytes. */
  readonly maxBytes: number
  /** It counts as stuck once it has printed nothing for so long. */
  readonly quietMs: number
  /** However much it prints. */
  readonly limitMs?: number | undefined
}

/**
 * Runs a command whose program may have become anything by now. Rejects with `TOO_LARGE` or `TIMEOUT` once it goes beyond its
 * bounds, and then asks its shell with SIGTERM to end, without waiting for that.
 */
export async function runBounded(
  sandbox: RemoteSandbox,
  command: string,
  { maxBytes, quietMs, limitMs }: RunBounds,
  { signal, ...options }: Omit<CommandOptions, 'onStdout' | 'onStderr' | 'timeoutMs'> = {},
): Promise<CommandOutcome> {
  const bounds = new AbortController()
  const stop = (code: 'TIMEOUT' | 'TOO_LARGE', what: string): void =>
    bounds.abort(new ConductorError(code, `a command in sandbox ${sandbox.id} ${what}`))
  const quiet = setTimeout(() => stop('TIMEOUT', `gave no sign of life for ${quietMs} ms`), quietMs)
  const limit =
    limitMs === undefined
      ? undefined
      : setTimeout(() => stop('TIMEOUT', `took more than ${limitMs} ms`), limitMs)
  let sizeBytes = 0
  const heard = (text: string): void => {
    sizeBytes += Buffer.byteLength(text)
    if (sizeBytes > maxBytes) stop('TOO_LARGE', `printed over ${maxBytes} bytes`)
    quiet.refresh()
  }
  const either = joinSignals(bounds.signal, signal)
  let running: RunningCommand | undefined
  try {
    const spec = { ...options, onStdout: heard, onStderr: heard, signal: either }
    running = await untilAborted(sandbox.start(command, spec), either)
    const ended = running.wait()
    ended.catch(() => {})
    return await untilAborted(ended, either)
  } catch (error) {
    if (running !== undefined && either.aborted) {
      // Nobody waits for either, and it does not matter to what comes next whether they succeed.
      running.disconnect().catch(() => {})
      const end = `kill -TERM ${running.pid}`
      sandbox.run(end, { cwd: '/', envs: NO_PROFILE, timeoutMs: END_LIMIT_MS }).catch(() => {})
    }
    throw error
  } finally {
    clearTimeout(quiet)
    clearTimeout(limit)
  }
}

/** Environment of a shell that reads no login files of a worker's, which may print anything, sleep or exit. */
export const NO_PROFILE: Readonly<Record<string, string>> = { HOME: '/' }
