import { randomBytes } from 'node:crypto'
import type { CallOptions } from '../call-options.js'
import { ConductorError, isConductorError } from '../errors.js'
import { brokerFolder } from '../protocol/broker.js'
import type { Grant, GrantHttp } from '../protocol/grant.js'
import { WORKER_FILES, workerFolder } from '../protocol/spool-layout.js'
import { quote } from '../sandbox/quote.js'
import type { RemoteSandbox, SandboxFile } from '../sandbox/remote-sandbox.js'
import { runPlainly } from '../sandbox/run-plainly.js'
import { serveBrokerFolder } from './broker/serve-folder.js'
import type { GrantEvent } from './broker/task-broker.js'
import type { GrantAccess, Granter } from './granter.js'

/** A fresh session comes this long before the old one ends. */
const RENEW_BEFORE_MS = 900_000
/** After a failure to renew it is tried again; the old grant is good for a while yet. */
const RETRY_MS = 60_000
/** setTimeout takes no longer wait. */
const MAX_WAIT_MS = 2_147_483_647

/** Whose grant, and by which means. */
export interface WorkerGrantOptions {
  readonly taskId: string
  readonly localDir: string
  readonly access: GrantAccess
  /** The endpoint as the worker reaches it until then. */
  readonly http?: ((expiresAt: Date) => GrantHttp | undefined) | undefined
  /** Whether another process has served the worker before. @default false */
  readonly inherited?: boolean | undefined
  /** How long before it ends a session is renewed, in milliseconds. @default 15 minutes, or half its time where that is less */
  readonly renewBeforeMs?: number | undefined
}

/** One worker's grant: issued before its sandbox exists, then kept good, and its requests answered, until `end()`. */
export class WorkerGrant {
  readonly #granter: Granter
  readonly #options: WorkerGrantOptions
  #grant: Grant
  #wantedUntil: Date
  #timer: NodeJS.Timeout | undefined
  #renewing: Promise<void> | undefined
  #refreshed: Promise<void> = Promise.resolve()
  #ended = false
  #stopServing: (() => Promise<void>) | undefined

  private constructor(granter: Granter, options: WorkerGrantOptions, grant: Grant, expiresAt: Date) {
    this.#granter = granter
    this.#options = options
    this.#grant = grant
    this.#wantedUntil = expiresAt
  }

  /** Makes a grant for a worker; nothing reaches a sandbox yet. */
  static async issue(
    granter: Granter,
    options: WorkerGrantOptions,
    expiresAt: Date,
    call: CallOptions = {},
  ): Promise<WorkerGrant> {
    const { taskId, access, http } = options
    const grant = await granter.issue({ taskId, access, expiresAt, http: http?.(expiresAt), ...call })
    return new WorkerGrant(granter, options, grant, expiresAt)
  }

  /** What goes into the sandbox before anything runs there. */
  get files(): readonly SandboxFile[] {
    const { localDir, taskId } = this.#options
    const grant = { path: this.#path, data: JSON.stringify(this.#grant) }
    if (!this.#isServedInFolder) return [grant]
    // Makes the folder, so that it can be watched.
    return [grant, { path: `${brokerFolder(localDir, taskId)}/.keep`, data: '' }]
  }

  /**
   * Takes up the conductor's side once the sandbox has the {@link files}: answers requests, and renews what ends too early.
   *
   * @param onGrant told of each answer of the broker
   */
  async serve(sandbox: RemoteSandbox, onGrant?: (event: GrantEvent) => void): Promise<void> {
    const { localDir, taskId } = this.#options
    if (this.#isServedInFolder) {
      const broker = this.#granter.brokerOf(taskId, onGrant)
      this.#stopServing = await serveBrokerFolder({ sandbox, localDir, taskId }, broker)
    }
    this.#schedule(sandbox)
  }

  /** Puts a fresh grant in the place of the old one, good until then; call it when the worker's time is extended. */
  async refresh(sandbox: RemoteSandbox, expiresAt: Date, call: CallOptions = {}): Promise<void> {
    this.#wantedUntil = expiresAt
    // One after another: an earlier one that takes its time would else replace a later one.
    const refreshed = this.#refreshed.then(() => this.#replace(sandbox, call))
    this.#refreshed = refreshed.catch(() => {})
    await refreshed
  }

  async #replace(sandbox: RemoteSandbox, call: CallOptions): Promise<void> {
    const { taskId, access, http } = this.#options
    const expiresAt = this.#wantedUntil
    this.#grant = await this.#granter.issue({
      taskId,
      access,
      expiresAt,
      http: http?.(expiresAt),
      ...call,
    })
    await this.install(sandbox, call)
    this.#schedule(sandbox)
  }

  /** Whether it ends before it was meant to, as only a session does: the one before may have ended already. */
  get endsEarly(): boolean {
    return Date.parse(this.#grant.expires_at) < this.#wantedUntil.getTime()
  }

  /** Puts this grant where a sandbox that is there already has its own. */
  async install(sandbox: RemoteSandbox, call: CallOptions = {}): Promise<void> {
    const fresh = `${this.#path}.${randomBytes(4).toString('hex')}`
    const others = this.files.filter(({ path }) => path !== this.#path)
    await sandbox.writeFiles([{ path: fresh, data: JSON.stringify(this.#grant) }, ...others], call)
    // Whoever reads the grant meanwhile finds the old one or the new one, whole.
    const { exitCode, stderr } = await runPlainly(
      sandbox,
      `chmod 600 ${quote(fresh)} && mv -f ${quote(fresh)} ${quote(this.#path)}`,
      call,
    )
    if (exitCode !== 0) {
      throw new ConductorError('COMMAND_FAILED', `the grant was not put in its place: ${stderr.trim()}`)
    }
  }

  /**
   * Answers and renews no more. What was signed before ends by itself.
   *
   * @param goesOn whether the worker does, so that somebody else may finish its uploads; without it they are freed
   */
  async end({ goesOn = false }: { readonly goesOn?: boolean } = {}): Promise<void> {
    const { taskId, access, inherited = false } = this.#options
    this.#ended = true
    clearTimeout(this.#timer)
    await this.#renewing
    try {
      await this.#stopServing?.()
      if (goesOn) this.#granter.leave(taskId)
      // With a session a worker begins uploads by itself; those of a worker of others are theirs.
      else
        await this.#granter.end(taskId, {
          unseen: access === 'session' || (inherited && access !== 'policy'),
        })
    } catch (error) {
      // The watch's connection died with the sandbox, or the store is away: parts that it keeps are its lifecycle rules' then.
      if (!isConductorError(error)) throw error
    }
  }

  get #path(): string {
    return `${workerFolder(this.#options.localDir, this.#options.taskId)}/${WORKER_FILES.grant}`
  }

  get #isServedInFolder(): boolean {
    const broker = this.#grant.s3?.broker
    return broker !== undefined && broker.url === undefined
  }

  /** Only a session ends before it was meant to. */
  #schedule(sandbox: RemoteSandbox): void {
    clearTimeout(this.#timer)
    const endsAt = Date.parse(this.#grant.expires_at)
    if (this.#ended || endsAt >= this.#wantedUntil.getTime()) return
    const left = endsAt - Date.now()
    const before = this.#options.renewBeforeMs ?? Math.min(RENEW_BEFORE_MS, left / 2)
    this.#renewIn(sandbox, left - before)
  }

  #renewIn(sandbox: RemoteSandbox, waitMs: number): void {
    const renew = async (): Promise<void> => {
      try {
        await this.refresh(sandbox, this.#wantedUntil)
      } catch (error) {
        if (this.#ended || (isConductorError(error) && error.code === 'SANDBOX_GONE')) return
        // A worker whose grant ends keeps its results in the spool, from where draining delivers them.
        this.#renewIn(sandbox, RETRY_MS)
      }
    }
    this.#timer = setTimeout(
      () => {
        this.#renewing = renew()
      },
      Math.min(waitMs, MAX_WAIT_MS),
    )
    this.#timer.unref()
  }
}
