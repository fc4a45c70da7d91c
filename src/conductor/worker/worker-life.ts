import { ConductorError } from '../../errors.js'

/**
 * Where a worker is in its life; `lost` can follow any but `terminated`, `retrying` means that its sandbox was lost and another
 * is being made, and `detached` that somebody else may have it.
 */
export type WorkerState =
  | 'ready'
  | 'running'
  | 'retrying'
  | 'exited'
  | 'draining'
  | 'terminated'
  | 'lost'
  | 'detached'

/** The state that a worker is in, and what may be asked of it there. */
export class WorkerLife {
  readonly #taskId: string
  readonly #onChange: (state: WorkerState) => void
  #state: WorkerState

  constructor(taskId: string, state: WorkerState, onChange: (state: WorkerState) => void) {
    this.#taskId = taskId
    this.#state = state
    this.#onChange = onChange
  }

  get state(): WorkerState {
    return this.#state
  }

  /** Whether nothing more happens to it here. */
  get isOver(): boolean {
    return this.#is('terminated', 'lost', 'detached')
  }

  /** Whether results may lie in its sandbox. */
  get hasSandbox(): boolean {
    return !this.#is('terminated', 'lost', 'retrying')
  }

  /** Goes on to another state, except from `detached`. */
  to(state: WorkerState): void {
    if (this.#state === 'detached') return
    this.#state = state
    this.#onChange(state)
  }

  /** Throws `EXISTS` while a command runs, or is about to run again; `CLOSED` where none can any more. */
  assertMayStart(): void {
    if (this.#is('ready', 'exited')) return
    const code = this.#is('running', 'retrying') ? 'EXISTS' : 'CLOSED'
    throw new ConductorError(code, `worker ${this.#taskId} cannot start a command while it is ${this.#state}`)
  }

  /** Throws `CLOSED` once its end has begun. */
  assertMayExtend(): void {
    if (this.#is('ready', 'running', 'retrying', 'exited')) return
    throw new ConductorError('CLOSED', `worker ${this.#taskId} cannot be extended while it is ${this.#state}`)
  }

  /** Throws `CLOSED` where somebody else may have it. */
  assertMayEnd(): void {
    if (this.#state !== 'detached') return
    throw new ConductorError('CLOSED', `worker ${this.#taskId} was detached: attach to it to end it`)
  }

  #is(...states: readonly WorkerState[]): boolean {
    return states.includes(this.#state)
  }
}
