/** What a conductor writes before it makes a sandbox for a task, so that no other makes a second one. */
export interface Intent {
  readonly v: 1
  readonly task_id: string
  readonly spawn_id: string
  /** Id of the conductor that is starting it. */
  readonly conductor: string
  /** ISO 8601, UTC. */
  readonly created_at: string
  /** True once it is known that no sandbox came of it. */
  readonly released: boolean
}
