import { ConductorError, isConductorError } from '../../errors.js'

/** Writers that come in between before an update gives up; each of them got its own update through. */
const MAX_CONFLICTS = 20
/** Refusals of a write over what is still there; the first few may be of a store that is a moment behind. */
const MAX_UNCHANGED = 3

/** Counts how often what was to be replaced had changed, and tells somebody else's progress from a store that compares tags wrongly. */
export class Conflicts {
  readonly #what: string
  #count = 0
  #unchanged = 0
  #last: string | undefined

  /** @param what names it in messages */
  constructor(what: string) {
    this.#what = what
  }

  /**
   * Takes why a write was refused, and the tag that it expected (`undefined` for nothing there): returns where another go may get
   * through. Rethrows any error but `EXISTS`; throws `UNAVAILABLE`, retryable, where others never stop coming first, and `UNSUPPORTED` where the
   * store refuses to replace the very thing it shows.
   */
  note(error: unknown, expected: string | undefined): void {
    if (!isConductorError(error) || error.code !== 'EXISTS') throw error
    this.#count += 1
    this.#unchanged = this.#count > 1 && expected === this.#last ? this.#unchanged + 1 : 0
    this.#last = expected
    if (this.#unchanged >= MAX_UNCHANGED) {
      throw new ConductorError(
        'UNSUPPORTED',
        `${this.#what} cannot be replaced: the store refuses a write on the condition that ${expected === undefined ? 'nothing' : `the tag ${expected}`} is there, and shows just that`,
        { cause: error },
      )
    }
    if (this.#count < MAX_CONFLICTS) return
    throw new ConductorError('UNAVAILABLE', `${this.#what} changes all the time`, {
      retryable: true,
      cause: error,
    })
  }
}
