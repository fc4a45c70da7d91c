import type { SpawnOrder } from '../messages.js'

/** What a conductor of the matrix is to do. */
export interface MatrixOrder {
  /**
   * `leave` starts the workers, sees the first one's end, and waits to be killed. `retry` starts them to be begun again, and
   * counts its steps from when it is told to.
   */
  readonly do: 'terminate' | 'leave' | 'recover' | 'retry'
  readonly tasks: readonly { readonly taskId: string; readonly spawn: SpawnOrder }[]
}

/** What it tells. */
export type MatrixMessage =
  | { readonly said: 'sandbox'; readonly taskId: string; readonly sandboxId: string }
  | { readonly said: 'left' }
  | { readonly said: 'armed' }
  | { readonly said: 'recovered' }
  | { readonly said: 'output'; readonly taskId: string; readonly text: string }
