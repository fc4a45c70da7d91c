import type { DeathCause, ExitStatus, Outcome } from './outcome.js'

/** File name of a death certificate among a task's results. */
export const DEATH_CERTIFICATE_NAME = 'death-certificate.json'

/** What is known of the end of a worker that did not end by itself; the conductor stores it as a result of the task. */
export interface DeathCertificate {
  readonly v: 1
  readonly task_id: string
  readonly attempt: number
  /** Empty where it vanished before any conductor that lives now had seen it. */
  readonly sandbox_id: string
  readonly cause: DeathCause
  /** When its end was noticed; ISO 8601, UTC. */
  readonly at: string
  readonly outcome: Outcome
  readonly exit: ExitStatus | null
  /** Last sign of life of the command's supervisor; null when none was seen. ISO 8601, UTC. */
  readonly last_heartbeat_at: string | null
  /** Last that anything came from the sandbox; ISO 8601, UTC. */
  readonly last_seen_at: string
  /** Whether another conductor process had started it. */
  readonly taken_over: boolean
  /** What the cause was concluded from, one finding each. */
  readonly evidence: readonly string[]
  /** The last of what the command printed. */
  readonly log_tail: { readonly stdout: string; readonly stderr: string }
}
