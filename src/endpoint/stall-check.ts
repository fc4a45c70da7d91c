import { HttpError } from './http-error.js'
import type { Waiting } from './waiting.js'

/** Yields a body's chunks; gives up with 408 when nothing comes for too long, and cancels the body when left early. */
export async function* readWithStallCheck(
  body: ReadableStream<Uint8Array>,
  stallTimeoutMs: number,
  waiting: Waiting,
): AsyncGenerator<Uint8Array, void, undefined> {
  const reader = body.getReader()
  let isWaiting = true
  const timer = setInterval(() => {
    if (isWaiting)
      waiting.giveUp(new HttpError(408, 'stalled', `nothing came for ${stallTimeoutMs / 1000} s`))
  }, stallTimeoutMs)
  try {
    for (;;) {
      timer.refresh()
      isWaiting = true
      const { done, value } = await waiting.until<Awaited<ReturnType<typeof reader.read>>>(
        (resolve, reject) => {
          reader.read().then(resolve, (cause: unknown) => {
            reject(new HttpError(400, 'incomplete_body', 'the body is cut off', { cause }))
          })
        },
      )
      // Time that the disk takes is not the client's.
      isWaiting = false
      if (done) return
      yield value
    }
  } finally {
    clearInterval(timer)
    // Told and not awaited: a body that has stalled may never answer.
    reader.cancel().catch(() => undefined)
  }
}
