import { randomBytes } from 'node:crypto'
import type { CallOptions } from '../../call-options.js'
import { ConductorError, isConductorError } from '../../errors.js'
import type { DrainReport } from '../../protocol/drain.js'
import { FENCE_SECONDS, RUN_FILES, WORKER_FILES, workerFolder } from '../../protocol/spool-layout.js'
import { quote } from '../../sandbox/quote.js'
import type { CommandOutcome, RemoteSandbox } from '../../sandbox/remote-sandbox.js'
import { runPlainly } from '../../sandbox/run-plainly.js'
import { withinLimit } from '../../sandbox/within-limit.js'
import { joinSignals } from '../../signals.js'
import { FIND_SUPERVISOR } from '../command/inspect.js'
import { fenceIdsOf } from '../command/run-fence.js'
import { LEASE_MS } from '../lease.js'
import { isQuickDrain, parseQuickDrain, quickDrainScript } from './quick-drain.js'

const RENEW_EVERY_MS = 20_000
/** A sandbox whose fence was renewed so lately is killed without asking again. */
const FRESH_MS = 45_000
/** A kill that takes longer is given up. Together with {@link FRESH_MS} it leaves a fence the time that a stray request may be late. */
const KILL_LIMIT_MS = 30_000
const ASK_LIMIT_MS = 30_000
const LIFT_LIMIT_MS = 10_000
/** Before a command that has shown itself counts as one that stays. */
const MAX_LOOKS = 10

/** Around whose sandbox. */
export interface FenceSpec {
  readonly taskId: string
  readonly localDir: string
  /** Puts it up whatever runs there. */
  readonly force: boolean
  /** Whether the spool goes with the sandbox, and nothing is to be stored before stock of it is taken. */
  readonly takesStock?: boolean | undefined
}

/**
 * Keeps every command from beginning in a sandbox that is about to be killed, and the seal of its spool in force.
 *
 * Several conductors may each have one around the same sandbox; none acts on another's. While any stands, no command begins
 * (`enterRun` says why none slips by), and while the one stands under which a spool was sealed, nobody is told that a
 * result is safe which was noted since. So whoever has taken stock may kill as long as his own fence has stood since, whatever
 * the others do; and nobody need know whether the owner of another is alive.
 *
 * A fence is a file, which only its owner renews and removes. One whose owner died stands for {@link FENCE_SECONDS}, by the
 * sandbox's uptime: that never runs ahead of its owner's clocks, sleeps while the sandbox does, and is not set anew. The owner
 * counts from before he asked for the renewal, and kills only when that is less than {@link FRESH_MS} ago; so the fence outlives
 * a request to kill by more than half a minute, also one that was given up and arrives later.
 */
export class Fence {
  readonly id: string
  /** What the spool held once the fence stood, where nothing was left to do about it; sealed since. One request does for both. */
  readonly stock: DrainReport | undefined
  readonly #sandbox: RemoteSandbox
  readonly #spec: FenceSpec
  readonly #file: string
  readonly #timer: NodeJS.Timeout
  #heldSince: Moment
  #isLapsed = false
  #isKilled = false
  #lifting: Promise<void> | undefined

  private constructor(
    sandbox: RemoteSandbox,
    spec: FenceSpec,
    id: string,
    { heldSince, stock }: { readonly heldSince: Moment; readonly stock: DrainReport | undefined },
  ) {
    this.id = id
    this.stock = stock
    this.#sandbox = sandbox
    this.#spec = spec
    this.#file = fencePath(spec, id)
    this.#heldSince = heldSince
    this.#timer = setInterval(() => {
      // What it means that it could not be renewed, the next kill finds out.
      this.#renew({}).catch(() => {})
    }, RENEW_EVERY_MS)
    this.#timer.unref()
  }

  /**
   * Puts one up, waking the sandbox if it is paused. Rejects with `EXISTS`, retryable, while a command runs there. Resolves with
   * undefined where there is no sandbox any more, and with `force` where it could not be put up.
   */
  static async take(
    sandbox: RemoteSandbox,
    spec: FenceSpec,
    { signal }: CallOptions = {},
  ): Promise<Fence | undefined> {
    // Another each time: a request to lift the one before may still be under way.
    const id = `${fenceIdsOf(sandbox.id)}${randomBytes(8).toString('hex')}`
    const put = async (): Promise<Fence> => {
      const heldSince = moment()
      const stock = await putUp(sandbox, spec, id, { signal })
      return new Fence(sandbox, spec, id, { heldSince, stock })
    }
    try {
      return await put().catch(async (error: unknown) => {
        if (!isConductorError(error) || error.code !== 'SANDBOX_PAUSED') throw error
        await sandbox.resume(LEASE_MS, { signal })
        return await put()
      })
    } catch (error) {
      if (!isConductorError(error) || (error.code !== 'SANDBOX_GONE' && !spec.force)) throw error
      return undefined
    }
  }

  /** Whether it has not stood all the time: what was taken stock of under it may not be all any more. */
  get isLapsed(): boolean {
    return this.#isLapsed
  }

  /** Kills the sandbox; rejects with `EXISTS`, retryable, where the fence has lapsed. One that is not there is what was wanted. */
  async kill({ signal }: CallOptions = {}): Promise<boolean> {
    const { taskId, force } = this.#spec
    try {
      if (ageMs(this.#heldSince) > FRESH_MS && !force) await this.#renew({ signal })
      if (this.#isLapsed && !force) {
        const what = `${taskId} was left alone for too long while it was being finished, and a command may have run`
        throw new ConductorError('EXISTS', what, { retryable: true })
      }
      this.#isKilled = true
      const killed = await withinLimit(KILL_LIMIT_MS, `kill sandbox ${this.#sandbox.id}`, (limit) =>
        this.#sandbox.kill({ signal: joinSignals(limit, signal) }),
      )
      clearInterval(this.#timer)
      return killed
    } catch (error) {
      if (!isConductorError(error) || error.code !== 'SANDBOX_GONE') throw error
      clearInterval(this.#timer)
      return false
    }
  }

  /**
   * Takes it down: its owner will not kill. Never rejects; one that cannot be removed now, or whose sandbox may be killed by a
   * request that is under way, is left to lapse.
   */
  lift(): Promise<void> {
    clearInterval(this.#timer)
    this.#isLapsed = true
    this.#lifting ??= this.#remove()
    return this.#lifting
  }

  async #remove(): Promise<void> {
    if (this.#isKilled) return
    const seal = `${workerFolder(this.#spec.localDir, this.#spec.taskId)}/${WORKER_FILES.sealed}${this.id}`
    try {
      const script = `rm -f -- ${quote(this.#file)}; rm -f -- ${quote(seal)}`
      await withinLimit(LIFT_LIMIT_MS, 'lift a fence', (signal) => ask(this.#sandbox, script, { signal }))
    } catch {
      // It lapses by itself.
    }
  }

  /** Has it lapse unless it has stood until now. */
  async #renew(options: CallOptions): Promise<void> {
    if (this.#isLapsed) return
    const sentAt = moment()
    const script = `if [ -e ${quote(this.#file)} ]; then ${noteUptime(this.#file)}; echo "fence held"; fi`
    const { stdout } = await ask(this.#sandbox, script, options)
    if (ageMs(this.#heldSince) < FENCE_SECONDS * 1000 && /^fence held$/m.test(stdout))
      this.#heldSince = sentAt
    else this.#isLapsed = true
  }
}

/** Where there is no room for it, the file's own time counts. */
function noteUptime(file: string): string {
  return `{ read -r up _ </proc/uptime; echo "\${up%%.*}" >${quote(file)}; } 2>/dev/null`
}

async function putUp(
  sandbox: RemoteSandbox,
  spec: FenceSpec,
  id: string,
  options: CallOptions,
): Promise<DrainReport | undefined> {
  const { taskId, localDir, force, takesStock = false } = spec
  const mark = randomBytes(16).toString('hex')
  const path = fencePath(spec, id)
  const [file, folder] = [quote(path), quote(workerFolder(localDir, taskId))]
  // The fence first, and only then whether anything runs.
  const script = `mkdir -p -- ${folder}
chmod u+rwx -- ${folder} 2>/dev/null
cd -- ${folder} && : >${file} || exit 1
${noteUptime(path)}
looks=0
while :; do
  under=
  for d in ${WORKER_FILES.runs}/*/; do
    n=\${d#*/}
    n=\${n%/}
    case $n in '' | 0* | *[!0-9]* | ?????????*) continue ;; esac
    if [ -e "$d${RUN_FILES.exit}" ]; then continue; fi
    ${FIND_SUPERVISOR}
    if [ -n "$pid" ]; then under=$n; fi
  done
  if [ -z "$under" ] || [ $looks -ge ${MAX_LOOKS} ]; then break; fi
  looks=$((looks + 1))
  sleep 0.1 2>/dev/null || sleep 1
done
${force ? '' : `if [ -n "$under" ]; then rm -f -- ${file}; fi`}
echo "fence taken $under"
if [ -n "$under" ]; then exit 0; fi
${takesStock ? `mark=${mark}\n${quickDrainScript({ taskId, localDir, seal: id })}` : ''}
exit 0`
  const { exitCode, stdout, stderr } = await ask(sandbox, script, options)
  const said = /^fence taken (\d*)$/m.exec(stdout)
  if (said === null) {
    const why = `status ${exitCode}: ${stderr.trim().slice(-2000)}`
    throw new ConductorError('COMMAND_FAILED', `${taskId} could not be kept from running commands: ${why}`)
  }
  if (said[1] !== '' && !force) {
    throw new ConductorError(
      'EXISTS',
      `run ${said[1]} of ${taskId} is under way: the sandbox was left alive, use force: true to end it`,
      { retryable: true },
    )
  }
  return isQuickDrain(stdout, mark) ? parseQuickDrain(stdout, mark) : undefined
}

function ask(sandbox: RemoteSandbox, script: string, { signal }: CallOptions = {}): Promise<CommandOutcome> {
  return runPlainly(sandbox, script, { timeoutMs: ASK_LIMIT_MS, signal })
}

function fencePath({ taskId, localDir }: FenceSpec, id: string): string {
  return `${workerFolder(localDir, taskId)}/${WORKER_FILES.finishing}${id}`
}

interface Moment {
  readonly wallMs: number
  readonly steadyMs: number
}

function moment(): Moment {
  return { wallMs: Date.now(), steadyMs: performance.now() }
}

/** By whichever clock says more: one does not count a machine's sleep, the other may be set back. */
function ageMs({ wallMs, steadyMs }: Moment): number {
  return Math.max(Date.now() - wallMs, performance.now() - steadyMs)
}
