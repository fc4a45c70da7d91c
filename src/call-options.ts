/** Last argument of every call that talks to somebody else. */
export interface CallOptions {
  /** Cancels the call; it rejects with `signal.reason`, unwrapped. */
  readonly signal?: AbortSignal | undefined
}
