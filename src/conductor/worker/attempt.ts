import type { CallOptions } from '../../call-options.js'
import { type ConductorError, isConductorError } from '../../errors.js'
import type { WorkerGrant } from '../../grants/worker-grant.js'
import type { WorkerRecord } from '../../protocol/worker-record.js'
import type { ResultsContext } from '../../results/context.js'
import type { Result } from '../../results/result.js'
import type { RemoteSandbox } from '../../sandbox/remote-sandbox.js'
import { SandboxFiles } from '../../sandbox/sandbox-files.js'
import { SpoolStore } from '../../stores/spool-store.js'
import { untilAborted } from '../../until-aborted.js'
import type { LogOffsets } from '../command/follow-log.js'
import { type Inspection, inspectWorker } from '../command/inspect.js'
import { type CommandSpec, SupervisedCommand } from '../command/supervised-command.js'
import { Fence } from '../end/fence.js'
import { type FinishedTask, finishTask } from '../end/finish-task.js'
import type { LateSeal } from '../end/late-seals.js'
import type { Receipt, WorkerExit } from '../end/receipt.js'
import { LEASE_MS, Lease } from '../lease.js'
import type { OpenIntent } from '../open-intent.js'
import type { TaskPlaces } from '../places.js'
import { Announcer } from './announcer.js'
import { grantEnd } from './issue-grant.js'
import { LifeSigns } from './life-signs.js'
import { workerFile } from './worker-files.js'
import type { RunOptions } from './worker-options.js'

/** A sandbox that is ready for its worker. */
export interface AttemptParts {
  readonly sandbox: RemoteSandbox
  readonly record: WorkerRecord
  /** Ended with the attempt. */
  readonly grant?: WorkerGrant | undefined
  /** What is written down of it; undefined where others did that. Closed or stopped with the attempt. */
  readonly intent?: OpenIntent | undefined
  /** Called once more at its end: removes sandboxes that were made along with it and came late. */
  readonly removeStrays?: (() => Promise<void>) | undefined
}

/** Whose attempt it is, and who is told of it. */
export interface AttemptOptions {
  readonly places: TaskPlaces
  /** Of the whole worker. */
  readonly results: ResultsContext
  /** Whether another process began it. */
  readonly takenOver: boolean
  readonly onResult: (result: Result) => void
  /** The sandbox exists no more. */
  readonly onGone: (attempt: Attempt, error: ConductorError) => void
}

/** Told of text as it arrives. */
export type OnPrinted = (stream: 'stdout' | 'stderr', text: string) => void

/** How an attempt is finished. */
export interface FinishAttemptOptions extends CallOptions {
  readonly force: boolean
  /** Whether the sandbox is known to be gone. */
  readonly isLost: boolean
}

/** One sandbox of a worker, and all that is of use only while that one lives. */
export class Attempt {
  readonly sandbox: RemoteSandbox
  readonly spool: SpoolStore
  readonly signs: LifeSigns
  readonly #places: TaskPlaces
  readonly #grant: WorkerGrant | undefined
  readonly #intent: OpenIntent | undefined
  readonly #removeStrays: (() => Promise<void>) | undefined
  readonly #lease: Lease
  readonly #announcer: Announcer
  #record: WorkerRecord
  #finished: FinishedTask | undefined
  #fence: Fence | undefined
  #isClosed = false

  constructor(parts: AttemptParts, { places, results, takenOver, onResult, onGone }: AttemptOptions) {
    const { sandbox, record, grant, intent, removeStrays } = parts
    this.sandbox = sandbox
    this.#record = record
    this.#places = places
    this.#grant = grant
    this.#intent = intent
    this.#removeStrays = removeStrays
    this.spool = new SpoolStore(
      `sandbox ${sandbox.id}`,
      'sandbox',
      new SandboxFiles(sandbox, places.localDir),
    )
    const { task_id: taskId } = record
    this.#announcer = new Announcer({ taskId, sandbox, spool: this.spool, places, results, onResult })
    this.signs = new LifeSigns({ sandbox, record, places, takenOver })
    this.#lease = new Lease(sandbox, new Date(record.deadline_at), {
      extended: (ms) => this.signs.extended(ms),
      gone: (error) => onGone(this, error),
    })
  }

  get record(): WorkerRecord {
    return this.#record
  }

  /** Writes its end down, where it is finished and S3 could not take that. */
  get lateSeal(): LateSeal | undefined {
    return this.#isClosed ? this.#finished?.lateSeal : undefined
  }

  /** Hears of results as they are stored; repeated calls do nothing. */
  watchResults(): void {
    this.#announcer.watch()
  }

  /** Starts a command; what it prints is told, and remembered for the case of its death. */
  async startCommand(
    runId: string,
    command: string,
    { signal, ...options }: RunOptions & { readonly keepsOutput: boolean },
    onPrinted: OnPrinted,
  ): Promise<SupervisedCommand> {
    const spec = this.#specOf(runId, command, options, onPrinted)
    // Whatever was taken stock of before.
    this.#finished = undefined
    await this.#fence?.lift()
    return SupervisedCommand.start(this.sandbox, spec, { signal })
  }

  /** Takes up a command that another process started. */
  resumeCommand(
    runId: string,
    pid: number | undefined,
    from: LogOffsets,
    onPrinted: OnPrinted,
  ): SupervisedCommand {
    return SupervisedCommand.resume(
      this.sandbox,
      this.#specOf(runId, '', { keepsOutput: false }, onPrinted),
      pid,
      from,
    )
  }

  /** Asks the sandbox where the worker stands, waking it if it is paused. */
  async inspect({ signal }: CallOptions = {}): Promise<Inspection> {
    const { localDir } = this.#places
    const inspect = (): Promise<Inspection> =>
      inspectWorker(this.sandbox, { taskId: this.#record.task_id, localDir }, { signal })
    try {
      return await inspect()
    } catch (error) {
      if (!isConductorError(error) || error.code !== 'SANDBOX_PAUSED') throw error
      await this.sandbox.resume(LEASE_MS, { signal })
      return await inspect()
    }
  }

  /** Lets it live until then, and write as long. */
  async extend(endsAt: Date, { signal }: CallOptions = {}): Promise<void> {
    // The grant first: time without the right to use it is worth nothing.
    await this.#grant?.refresh(this.sandbox, grantEnd(endsAt.getTime()), { signal })
    this.#record = { ...this.#record, deadline_at: endsAt.toISOString() }
    // What the sandbox says of it alone no other conductor would believe.
    const news = { sandbox_id: this.sandbox.id, deadline_at: this.#record.deadline_at }
    if (this.#intent !== undefined) await untilAborted(this.#intent.tell(news), signal)
    await this.sandbox.writeFiles([workerFile(this.#record, this.#places.localDir)], { signal })
    await this.#lease.prolong(endsAt)
  }

  /** Delivers what it holds, seals it and kills the sandbox; what was lost is certified and sealed once. */
  async finish(exit: WorkerExit, { force, isLost, signal }: FinishAttemptOptions): Promise<Receipt> {
    try {
      return await this.#finishOnce(exit, { force, isLost, signal })
    } catch (error) {
      this.#lease.release()
      throw error
    }
  }

  async #finishOnce(exit: WorkerExit, { force, isLost, signal }: FinishAttemptOptions): Promise<Receipt> {
    let finished = this.#finished
    // What was taken stock of stays so: a sandbox that is gone at the next go was killed, and only the answer lost.
    if (finished === undefined || finished.isOpen) {
      finished = await this.#finish(exit, { force, isLost, signal })
      this.#finished = finished
      this.#isClosed = false
    }
    try {
      if (!this.#isClosed) await finished.close({ signal })
    } catch (error) {
      if (this.#fence?.isLapsed) this.#finished = undefined
      throw error
    }
    this.#isClosed = true
    return finished.receipt
  }

  async #finish(exit: WorkerExit, { force, isLost, signal }: FinishAttemptOptions): Promise<FinishedTask> {
    const { localDir, volume } = this.#places
    const { task_id: taskId, outputs, undeclared } = this.#record
    await this.#fence?.lift()
    if (!isLost) await this.#lease.hold()
    const takesStock = volume === undefined && outputs.length === 0 && undeclared === null
    const spec = { taskId, localDir, force, takesStock }
    const fence = isLost ? undefined : await Fence.take(this.sandbox, spec, { signal })
    this.#fence = fence
    const finishing = finishTask({
      taskId,
      sandbox: isLost ? undefined : this.sandbox,
      fence,
      spool: this.spool,
      places: this.#places,
      exit,
      record: this.#record,
      sandboxId: this.sandbox.id,
      force,
      intent: this.#intent,
      lostAt: () => this.signs.lostAt,
      lost: () => this.signs.lost(),
      certify: (end, call) => this.signs.certify(end, call),
      onRecord: (record) => this.#announcer.announce(record),
      known: () => this.#announcer.known,
      signal,
    })
    return finishing.catch(async (error: unknown) => {
      const lifted = fence?.lift()
      // Whoever gives it up does not wait for this either.
      if (!signal?.aborted) await lifted
      throw error
    })
  }

  /** Sees to its sandbox no longer, whether or not the worker in it goes on. */
  async end({ goesOn = false }: { readonly goesOn?: boolean } = {}): Promise<void> {
    this.#lease.end()
    // Of one that is over, it goes on until the end of it is written down as well.
    if (goesOn) this.#intent?.stop()
    await this.#fence?.lift()
    await this.#announcer.end()
    await this.#grant?.end({ goesOn })
    // One that came late is found here; one that cannot be removed now is paused by E2B, and recover() finds it.
    this.#removeStrays?.().catch(() => {})
  }

  #specOf(
    runId: string,
    command: string,
    { cwd, env, outputs, keepsOutput }: RunOptions & { readonly keepsOutput: boolean },
    onPrinted: OnPrinted,
  ): CommandSpec {
    const { task_id: taskId, cwd: ownCwd, grace_ms: graceMs } = this.#record
    const print = (stream: 'stdout' | 'stderr') => (text: string) => {
      this.signs.note(stream, text)
      onPrinted(stream, text)
    }
    return {
      taskId,
      runId,
      localDir: this.#places.localDir,
      command,
      cwd: cwd ?? ownCwd,
      env: env ?? {},
      outputs: outputs ?? [],
      graceMs,
      keepsOutput,
      onStdout: print('stdout'),
      onStderr: print('stderr'),
    }
  }
}
