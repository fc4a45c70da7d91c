import type { DeathCertificate } from '../../protocol/death-certificate.js'
import type { DeathCause } from '../../protocol/outcome.js'
import type { WorkerRecord } from '../../protocol/worker-record.js'
import type { RemoteSandbox } from '../../sandbox/remote-sandbox.js'
import { examineEnd, type PostMortem } from '../command/post-mortem.js'
import type { RunResult } from '../command/supervised-command.js'
import { type DrawnCertificate, drawCertificate, storeCertificate } from '../end/death-certificate.js'
import type { Delivery } from '../end/deliver.js'
import type { WorkerExit } from '../end/receipt.js'
import type { CertifyOptions } from '../end/write-end.js'
import { LEASE_MS } from '../lease.js'
import type { TaskPlaces } from '../places.js'

/** How much of the end of each stream a certificate keeps. */
const TAIL_CHARS = 4096

/** What a worker's life signs are read from. */
export interface LifeSignsOptions {
  readonly sandbox: RemoteSandbox
  readonly record: WorkerRecord
  readonly places: TaskPlaces
  /** Whether another process started it. */
  readonly takenOver: boolean
}

/** Remembers the last that was seen of a worker, and writes its death certificate when it does not end by itself. */
export class LifeSigns {
  readonly #options: LifeSignsOptions
  readonly #tail = { stdout: '', stderr: '' }
  #lastSeenMs = Date.now()
  #lifeEndsMs = Date.now() + LEASE_MS
  #death: PostMortem | undefined
  #loss: WorkerExit | undefined
  #lostAt: Date | undefined
  #certificate: DeathCertificate | undefined
  #drawn: DrawnCertificate | undefined
  #stored: Promise<Delivery | undefined> | undefined

  constructor(options: LifeSignsOptions) {
    this.#options = options
  }

  /** Something was printed. */
  note(stream: 'stdout' | 'stderr', text: string): void {
    this.#lastSeenMs = Date.now()
    this.#tail[stream] = (this.#tail[stream] + text).slice(-TAIL_CHARS)
  }

  /** The sandbox's life was extended by so much from now. */
  extended(ms: number): void {
    this.#lastSeenMs = Date.now()
    this.#lifeEndsMs = Date.now() + ms
  }

  /** Finds out why a command ended, if not by itself. */
  async examine(exit: WorkerExit, { runId, supervisorStatus }: RunResult): Promise<DeathCause | undefined> {
    const { sandbox, record, places } = this.#options
    this.#lastSeenMs = Date.now()
    this.#death = await examineEnd(sandbox, exit, {
      taskId: record.task_id,
      localDir: places.localDir,
      runId,
      supervisorStatus,
      cwd: record.cwd,
      stderrTail: this.#tail.stderr,
    })
    return this.#death?.cause
  }

  /** The sandbox is gone; why, as far as the clock tells. */
  lost(): WorkerExit {
    if (this.#loss !== undefined) return this.#loss
    this.#lostAt = new Date()
    const isOver = this.#lostAt.getTime() > this.#lifeEndsMs
    const cause: DeathCause = isOver ? 'sandbox_timeout' : 'sandbox_vanished'
    const ends = new Date(this.#lifeEndsMs).toISOString()
    const finding = isOver
      ? `its life ended at ${ends}`
      : `it was to live until ${ends}, and E2B knows it no more`
    this.#death = { cause, evidence: [finding], lastHeartbeatAt: undefined }
    this.#loss = { outcome: 'lost', exitCode: null, signal: null, cause }
    return this.#loss
  }

  /** When it was found to be gone, if so: what was stored later is no more its own. */
  get lostAt(): Date | undefined {
    return this.#lostAt
  }

  /**
   * Stores the certificate, once; undefined when the worker ended by itself or no tier takes it. What it says is settled at the
   * first go, which may have got through unheard.
   */
  async certify(exit: WorkerExit, { evidence, ...options }: CertifyOptions): Promise<Delivery | undefined> {
    this.#certificate ??= this.#draw(exit, evidence)
    if (this.#certificate === undefined) return undefined
    const { record, places } = this.#options
    this.#drawn ??= drawCertificate(this.#certificate, record.spawn_id, places)
    this.#stored ??= storeCertificate(this.#drawn, places, options)
    const stored = await this.#stored
    if (stored === undefined) this.#stored = undefined
    return stored
  }

  /** All that is known of its death; undefined when it ended by itself. */
  certificate(exit: WorkerExit): DeathCertificate | undefined {
    return this.#certificate ?? this.#draw(exit, [])
  }

  #draw(
    { outcome, exitCode, signal }: WorkerExit,
    evidence: readonly string[],
  ): DeathCertificate | undefined {
    const death = this.#death
    if (death === undefined) return undefined
    const { sandbox, record, takenOver } = this.#options
    return {
      v: 1,
      task_id: record.task_id,
      attempt: record.attempt,
      sandbox_id: sandbox.id,
      cause: death.cause,
      at: new Date().toISOString(),
      outcome,
      exit: exitCode === null && signal === null ? null : { code: exitCode, signal },
      last_heartbeat_at: death.lastHeartbeatAt?.toISOString() ?? null,
      last_seen_at: new Date(this.#lastSeenMs).toISOString(),
      taken_over: takenOver,
      evidence: [...death.evidence, ...evidence],
      log_tail: { ...this.#tail },
    }
  }
}
