/**
 * How a task ended. `succeeded` and `failed` are the last command's own status, `killed` means somebody stopped it,
 * `timed_out` that its time was up, `lost` that the sandbox went away first, `idle` that it never ran a command.
 */
export type Outcome = 'succeeded' | 'failed' | 'killed' | 'timed_out' | 'lost' | 'idle'

/** How a command ended: one of the two is null, or both when nobody saw it. */
export interface ExitStatus {
  readonly code: number | null
  readonly signal: string | null
}

/**
 * Why a worker ended other than by itself, as far as it can be known. `deadline`: its own time was up. `stopped`: its conductor
 * stopped it. `sandbox_timeout`: nobody extended the sandbox's life. `sandbox_vanished`: the sandbox went away early.
 * `out_of_memory`: the kernel killed for memory in it. `disk_full`: nothing could be written any more. `signal`: a signal from
 * inside the sandbox. `supervisor_killed`: what watched the command was killed with it, and nobody saw its end.
 * `supervisor_failed`: what was to watch the command could not start it, or could not write down how it ended.
 * `unknown`: the sandbox is gone, and whoever saw how is gone too or could not write it down.
 */
export type DeathCause =
  | 'deadline'
  | 'stopped'
  | 'sandbox_timeout'
  | 'sandbox_vanished'
  | 'out_of_memory'
  | 'disk_full'
  | 'signal'
  | 'supervisor_killed'
  | 'supervisor_failed'
  | 'unknown'
