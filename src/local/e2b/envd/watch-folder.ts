import { z } from 'zod'
import type { EntryInfo } from '../files/entry.js'
import { FolderWatcher, type WatchEvent } from '../files/folder-watcher.js'
import { RequestError } from '../request-error.js'
import type { Sandbox } from '../sandbox/sandbox.js'
import { expandPath } from './access.js'
import { entryAt } from './entry-at.js'
import type { StreamCall } from './rpc.js'

/** `filesystem.WatchDirRequest`; network mounts need no leave here. */
export const watchRequest = z.object({
  path: z.string().default(''),
  recursive: z.boolean().default(false),
  includeEntry: z.boolean().default(false),
})

/** Sends what happens in a folder until the client leaves or its time is up. */
export async function watchFolder({
  sandbox,
  user,
  message,
  open,
  deadlineMs,
}: StreamCall<z.output<typeof watchRequest>>): Promise<RequestError | undefined> {
  const path = expandPath(message.path, user)
  let report: (event: WatchEvent) => void = () => {}
  let fail: (error: unknown) => void = () => {}
  const watcher = await FolderWatcher.start(sandbox.live().jail.root, path, message.recursive, {
    onEvent: (event) => report(event),
    onError: (error) => fail(error),
  })
  let timer: NodeJS.Timeout | undefined
  try {
    return await new Promise((resolve, reject) => {
      const stream = open({ keepalive: {} })
      void stream.send({ start: {} })
      let sent: Promise<unknown> = Promise.resolve()
      report = (event) => {
        // In order, and with the entry as it is now.
        sent = sent
          .then(async () => {
            const entry = message.includeEntry
              ? await entryIfThere(sandbox, `${path}/${event.name}`)
              : undefined
            await stream.send({
              filesystem: {
                name: event.name,
                type: `EVENT_TYPE_${event.type}`,
                ...(entry === undefined ? {} : { entry }),
              },
            })
          })
          .catch(reject)
      }
      fail = reject
      stream.closed.addEventListener('abort', () => resolve(undefined), { once: true })
      if (stream.closed.aborted) resolve(undefined)
      if (deadlineMs !== undefined) {
        timer = setTimeout(
          () => resolve(new RequestError('deadline_exceeded', 'the time for watching is up')),
          deadlineMs,
        )
      }
    })
  } finally {
    clearTimeout(timer)
    watcher.close()
  }
}

async function entryIfThere(sandbox: Sandbox, path: string): Promise<EntryInfo | undefined> {
  try {
    return await entryAt(sandbox, path)
  } catch (error) {
    if (error instanceof RequestError && (error.code === 'not_found' || error.code === 'unavailable'))
      return undefined
    throw error
  }
}
