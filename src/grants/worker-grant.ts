import type { CallOptions } from '../call-options.js'
import { isConductorError } from '../errors.js'
import { brokerFolder } from '../protocol/broker.js'
import type { Grant, GrantHttp } from '../protocol/grant.js'
import { WORKER_FILES, workerFolder } from '../protocol/spool-layout.js'
import { quote } from '../sandbox/quote.js'
import type { RemoteSandbox, SandboxFile } from '../sandbox/remote-sandbox.js'
import { serveBrokerFolder } from './broker/serve-folder.js'
import type { GrantEvent } from './broker/task-broker.js'
import type { GrantAccess, Granter } from './granter.js'

/** A fresh grant comes this long before the old one ends, or when half its time is over if that is later. */
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
}

/** One worker's grant: issued before its sandbox exists, then kept good, and its requests answered, until `end()`. */
export class WorkerGrant {
  readonly #granter: Granter
  readonly #options: WorkerGrantOptions
  #grant: Grant
  #wantedUntil: Date
  #timer: NodeJS.Timeout | undefined
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
    const { taskId, access, http } = this.#options
    this.#wantedUntil = expiresAt
    const grant = await this.#granter.issue({ taskId, access, expiresAt, http: http?.(expiresAt), ...call })
    // Whoever reads the grant meanwhile finds the old one or the new one, whole.
    const fresh = `${this.#path}.new`
    await sandbox.writeFiles([{ path: fresh, data: JSON.stringify(grant) }], call)
    await sandbox.run(`chmod 600 ${quote(fresh)} && mv -f ${quote(fresh)} ${quote(this.#path)}`, call)
    this.#grant = grant
    this.#schedule(sandbox)
  }

  /** Answers and renews no more, and frees uploads that will not be finished. What was signed before ends by itself. */
  async end(): Promise<void> {
    clearTimeout(this.#timer)
    try {
      await this.#stopServing?.()
      await this.#granter.end(this.#options.taskId)
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
    if (endsAt >= this.#wantedUntil.getTime()) return
    const left = endsAt - Date.now()
    this.#renewIn(sandbox, Math.max(left - RENEW_BEFORE_MS, left / 2))
  }

  #renewIn(sandbox: RemoteSandbox, waitMs: number): void {
    this.#timer = setTimeout(
      () => {
        this.refresh(sandbox, this.#wantedUntil).catch((error: unknown) => {
          // A worker whose grant ends keeps its results in the spool, from where draining delivers them.
          if (!isConductorError(error) || error.code !== 'SANDBOX_GONE') this.#renewIn(sandbox, RETRY_MS)
        })
      },
      Math.min(waitMs, MAX_WAIT_MS),
    )
    this.#timer.unref()
  }
}
