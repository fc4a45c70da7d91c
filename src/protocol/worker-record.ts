/**
 * What a conductor that never saw a worker must know to go on with it; lies in the worker's folder as `worker.json`. The
 * sandbox can change it, so it decides over nothing but that sandbox's own end.
 */
export interface WorkerRecord {
  readonly v: 1
  readonly task_id: string
  /** Tells this spawn from every other of the same task. */
  readonly spawn_id: string
  /** Numbers the sandboxes of one task from 1. */
  readonly attempt: number
  /** ISO 8601, UTC. */
  readonly created_at: string
  /** When the worker's own time is up; ISO 8601, UTC. */
  readonly deadline_at: string
  readonly grace_ms: number
  /** Working directory of commands; declared outputs are relative to it. */
  readonly cwd: string
  /** Declared outputs. */
  readonly outputs: readonly string[]
  /** Null unless asked for. */
  readonly undeclared: UndeclaredRecord | null
}

/** What is archived at a worker's end although nobody declared or persisted it. */
export interface UndeclaredRecord {
  /** Folders. */
  readonly roots: readonly string[]
  readonly max_bytes: number
  readonly max_files: number
  /** Names left out besides the usual ones. */
  readonly exclude: readonly string[]
}
