import pLimit from 'p-limit'
import { isConductorError } from '../../errors.js'
import {
  BROKER_FILES,
  BROKER_LIMITS,
  type BrokerAnswer,
  brokerFolder,
  brokerRequestId,
  formatBrokerAnswer,
} from '../../protocol/broker.js'
import { keepWatching } from '../../sandbox/keep-watching.js'
import type { RemoteSandbox } from '../../sandbox/remote-sandbox.js'
import { withinLimit } from '../../sandbox/within-limit.js'
import { readTextLimited } from '../../streams/read-text-limited.js'

/** Requests of one worker that are answered side by side. */
const ANSWERS_AT_ONCE = 8
/** Further ones wait; beyond this they are dropped, and written again by clients that mean it. */
const MAX_WAITING = 256
/** Reading a request and writing its answer takes no honest sandbox as long. */
const LIMIT_MS = 10_000
/** One change of a file may be told of more than once; a client that repeats itself waits longer than this. */
const ECHO_MS = BROKER_LIMITS.repeatMs / 2

/** What answers a request's text; `undefined` when there is nobody to answer to. */
export interface Answerer {
  answer(text: string): Promise<BrokerAnswer | undefined>
}

/** Where a worker's requests lie. */
export interface BrokerFolderPlace {
  readonly sandbox: RemoteSandbox
  readonly localDir: string
  readonly taskId: string
  /** How long one request may hold a connection, in milliseconds. @default 10 seconds */
  readonly limitMs?: number | undefined
}

/**
 * Answers what a worker leaves in its broker's folder, until the returned function is called: for each request one call of the
 * sandbox's API to read it and one to write the answer. The folder must be there.
 */
export async function serveBrokerFolder(
  place: BrokerFolderPlace,
  broker: Answerer,
): Promise<() => Promise<void>> {
  const { sandbox, taskId, limitMs = LIMIT_MS } = place
  const folder = brokerFolder(place.localDir, taskId)
  const limit = pLimit(ANSWERS_AT_ONCE)
  const busy = new Set<string>()
  const answer = async (id: string): Promise<void> => {
    try {
      const path = `${folder}/${id}`
      const text = await withinLimit(limitMs, `read ${path}`, async (signal) => {
        const body = await sandbox.openFile(`${path}${BROKER_FILES.request}`, { signal })
        return (await readTextLimited(body, BROKER_LIMITS.requestBytes)) ?? '{}'
      })
      const answered = await broker.answer(text)
      // A request whose text has another id than its file's name would answer to somebody else.
      if (answered?.id !== id) return
      const file = { path: `${path}${BROKER_FILES.answer}`, data: formatBrokerAnswer(answered) }
      await withinLimit(limitMs, `write ${path}`, (signal) => sandbox.writeFiles([file], { signal }))
    } catch (error) {
      // The client gave up or the connection broke; whoever still waits asks again.
      if (!isConductorError(error)) throw error
      // Whoever holds up connections gets one from then on, so that enough are left for all other workers.
      if (error.code === 'TIMEOUT') limit.concurrency = 1
    } finally {
      setTimeout(() => busy.delete(id), ECHO_MS).unref()
    }
  }
  return await keepWatching(sandbox, folder, (fileName) => {
    const id = brokerRequestId(fileName)
    if (id === undefined || busy.has(id) || limit.pendingCount >= MAX_WAITING) return
    busy.add(id)
    void limit(() => answer(id))
  })
}
