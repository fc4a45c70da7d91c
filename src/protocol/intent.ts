/** One sandbox of a task, from the moment that a conductor is about to make it until its end is written down. */
export interface SandboxIntent {
  readonly v: 1
  readonly task_id: string
  readonly spawn_id: string
  /** Id of the conductor that is starting it. */
  readonly conductor: string
  /** ISO 8601, UTC. */
  readonly created_at: string
  /** Numbers the sandbox among the task's; undefined where nobody counted, which means the first. */
  readonly attempt?: number | undefined
  /** Name of the volume that is its spool, if one is; results may lie nowhere else. */
  readonly volume?: string | undefined
  /** Under which key the worker's death certificate goes, once somebody is about to write one. */
  readonly certificate_key?: string | undefined
  /** The sandbox, once it was equipped; without it there may never have been one. */
  readonly sandbox_id?: string | undefined
  /** When the worker's own time is up; ISO 8601, UTC. Told along with the sandbox, and whenever it changes. */
  readonly deadline_at?: string | undefined
}

/**
 * What a conductor writes before it makes a sandbox for a task, so that no other makes a second one, and so that a worker whose
 * sandbox vanishes while no conductor lives is missed. Emptied, not deleted, once the end of every sandbox in it is written down.
 */
export interface Intent extends SandboxIntent {
  /** Sandboxes that the task had before and whose end is not written down yet, the latest first. */
  readonly earlier?: readonly SandboxIntent[] | undefined
}
