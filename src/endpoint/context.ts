import type { Principal, ResolvedHandlerOptions } from './options.js'
import type { TaskQuotas } from './task-quotas.js'

/** What answering a request needs besides the request. */
export interface EndpointContext {
  readonly options: ResolvedHandlerOptions
  readonly quotas: TaskQuotas
  /** Whom the request comes from. */
  readonly principal: Principal
  readonly url: URL
}
