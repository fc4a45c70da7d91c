import { ConductorError } from '../../errors.js'
import { RECORD_SUFFIX } from '../../protocol/key.js'

/** Where an endpoint is, and where in it things lie. A query that the address carries goes with every request. */
export class EndpointAddress {
  /** Without user, query and fragment: fit to be shown. */
  readonly shown: string
  readonly #base: URL

  /** Throws `INVALID_OPTION` for anything but an http or https URL without a user in it. */
  constructor(endpoint: string) {
    const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined
    if (url === undefined || !/^https?:$/.test(url.protocol)) {
      throw new ConductorError('INVALID_OPTION', 'results endpoint must be an http or https URL')
    }
    if (url.username !== '' || url.password !== '') {
      throw new ConductorError(
        'INVALID_OPTION',
        'results endpoint must not name a user; give a token instead',
      )
    }
    url.hash = ''
    this.#base = url
    this.shown = `${url.origin}${url.pathname.replace(/\/+$/, '')}`
  }

  /** Where results are posted. */
  post(): URL {
    return new URL(this.#base)
  }

  /** One page of a task's list. */
  list(taskId: string, cursor: string | undefined, startAfter: string | undefined): URL {
    const url = new URL(this.#base)
    url.searchParams.set('task_id', taskId)
    if (cursor !== undefined) url.searchParams.set('cursor', cursor)
    else if (startAfter !== undefined) url.searchParams.set('start_after', startAfter)
    return url
  }

  /** One page of the list of tasks. */
  tasks(cursor: string | undefined): URL {
    const url = new URL(this.#base)
    url.searchParams.set('tasks', '')
    if (cursor !== undefined) url.searchParams.set('cursor', cursor)
    return url
  }

  /** A result's bytes. */
  result(key: string): URL {
    const url = new URL(this.#base)
    const path = key.split('/').map(encodeURIComponent).join('/')
    url.pathname = `${url.pathname.replace(/\/+$/, '')}/${path}`
    return url
  }

  /** A result's record. */
  record(key: string): URL {
    return this.result(`${key}${RECORD_SUFFIX}`)
  }
}
