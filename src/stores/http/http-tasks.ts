import { z } from 'zod'
import type { CallOptions } from '../../call-options.js'
import { ConductorError } from '../../errors.js'
import { EVERY_TASK, taskIdProblem } from '../../protocol/key.js'
import type { ListTasksOptions, TaskEntry, TaskIndex, TaskUsage } from '../task-index.js'
import { EndpointAddress } from './endpoint-address.js'
import { type HttpCall, readText, refusalOf, send } from './http-client.js'
import type { HttpStoreOptions } from './http-store.js'

const MAX_PAGE_BYTES = 32 << 20
/** Pages in a row without any task, after which an endpoint is only playing for time. */
const MAX_EMPTY_PAGES = 100

const count = z.number().int().nonnegative()
const pageSchema = z.object({
  tasks: z
    .array(
      z.object({
        task_id: z.string(),
        updated_at: z.iso.datetime(),
        results: count,
        size: count,
      }),
    )
    .max(100_000),
  next: z.string().min(1).max(8192).nullish(),
})

/** The tasks behind an endpoint that can list them: `GET {endpoint}?tasks&cursor=…` gives `{ tasks: [{ task_id, updated_at, results, size }…], next? }`. */
export class HttpTasks implements TaskIndex {
  readonly tier = 'http'
  readonly name: string
  readonly #address: EndpointAddress
  readonly #options: HttpStoreOptions

  /** Throws `INVALID_OPTION` for anything but an http or https URL. Nothing is sent yet. */
  constructor(options: HttpStoreOptions) {
    this.#address = new EndpointAddress(options.endpoint)
    this.#options = options
    this.name = this.#address.shown
  }

  async *listTasks({ signal, startsWith = '' }: ListTasksOptions = {}): AsyncGenerator<TaskEntry> {
    const { token: given, stallTimeoutMs = 60_000 } = this.#options
    const doing = `list the tasks of ${this.name}`
    const seen = new Set<string>()
    let cursor: string | undefined
    let emptyPages = 0
    for (;;) {
      const url = this.#address.tasks(cursor)
      const token = typeof given === 'function' ? given(EVERY_TASK, 'read') : given
      const page = await this.#readPage({ url, token, stallTimeoutMs, signal, doing }, cursor !== undefined)
      let tasks = 0
      for (const { task_id: taskId, updated_at, results, size } of page.tasks) {
        if (taskIdProblem(taskId) !== undefined) continue
        tasks += 1
        if (!taskId.startsWith(startsWith)) continue
        const usage = { resultCount: results, sizeBytes: size }
        yield { taskId, sealed: false, updatedAt: new Date(updated_at), usage }
      }
      if (page.next === undefined || page.next === null) return
      emptyPages = tasks === 0 ? emptyPages + 1 : 0
      if (seen.has(page.next) || emptyPages > MAX_EMPTY_PAGES) {
        throw new ConductorError('PROTOCOL', `${doing} does not advance`)
      }
      seen.add(page.next)
      cursor = page.next
    }
  }

  /** Its list says all that it knows. */
  async measure(_taskId: string, _options: CallOptions = {}): Promise<TaskUsage | undefined> {
    return undefined
  }

  /** @param goesOn whether a page before it was answered as one */
  async #readPage(call: HttpCall, goesOn: boolean): Promise<z.output<typeof pageSchema>> {
    const answer = await send({ ...call, headers: { accept: 'application/json' } })
    // An endpoint that does not know the question misses the task's id in it.
    if ([400, 404, 405, 410, 501].includes(answer.status)) {
      await answer.body.cancel()
      throw this.#cannot(`it answers HTTP ${answer.status}`, goesOn)
    }
    if (answer.status !== 200) throw await refusalOf(answer, call.doing)
    const text = await readText(answer, MAX_PAGE_BYTES, call.doing)
    try {
      return pageSchema.parse(JSON.parse(text))
    } catch (cause) {
      if (!(cause instanceof SyntaxError || cause instanceof z.ZodError)) throw cause
      throw this.#cannot('its answer is no page of tasks', goesOn, cause)
    }
  }

  #cannot(why: string, goesOn: boolean, cause?: unknown): ConductorError {
    if (goesOn) {
      return new ConductorError('PROTOCOL', `the list of the tasks of ${this.name} broke off: ${why}`, {
        cause,
      })
    }
    return new ConductorError('UNSUPPORTED', `${this.name} cannot list tasks: ${why}`, { cause })
  }
}
