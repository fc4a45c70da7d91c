import type { RemoteTier, ResultRecord } from '../../protocol/record.js'
import type { ResumeState } from '../spool/resume-file.js'
import type { Body } from '../spool/stage.js'

/** What a delivery may use besides the result itself. */
export interface DeliveryContext {
  /** Told how many more bytes were handed over; a retry may hand over the same ones again. */
  readonly onSent?: ((bytes: number) => void) | undefined
  readonly signal?: AbortSignal | undefined
  /** Told, before anything is sent, the location that the result will have if all goes well. */
  readonly foresee?: ((location: string) => void) | undefined
  /** Where an upload in several steps keeps how far it is; without it every attempt starts anew. */
  readonly resume?: ResumeState | undefined
}

/** A remote tier as one result sees it. */
export interface RemoteStore {
  readonly tier: RemoteTier
  /** Whether a refusal may be cured by reading the grant again. */
  readonly granted: boolean
  /**
   * Stores a result whole and gives its location. Repeating it is harmless: what is there already counts as stored.
   * Rejects with `EXISTS` when the key holds another result.
   */
  store(record: ResultRecord, body: Body, context: DeliveryContext): Promise<string>
  /** Frees what an upload in several steps has left in the store, when it will not be finished; rejects when it cannot. */
  abandon?(resume: ResumeState): Promise<void>
}
