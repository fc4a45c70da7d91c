/**
 * What a conductor writes before it makes a sandbox for a task, so that no other makes a second one, and so that a worker whose
 * sandbox vanishes while no conductor lives is missed. Emptied, not deleted, once the sandbox's end is written down.
 */
export interface Intent {
  readonly v: 1
  readonly task_id: string
  readonly spawn_id: string
  /** Id of the conductor that is starting it. */
  readonly conductor: string
  /** ISO 8601, UTC. */
  readonly created_at: string
  /** Numbers the sandbox among the task's; undefined where nobody counted, which means the first. */
  readonly attempt?: number | undefined
  /** Under which key the worker's death certificate goes, once somebody is about to write one. */
  readonly certificate_key?: string | undefined
}
