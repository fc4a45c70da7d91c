import { z } from 'zod'
import type { EntryInfo } from '../files/entry.js'
import { makeFolder, moveEntry, removeEntry } from '../files/file-operations.js'
import { listFolder } from '../files/list-folder.js'
import type { Handler } from '../http/router.js'
import type { Sandboxes } from '../sandbox/sandboxes.js'
import { expandPath } from './access.js'
import { entryAt, entryOf } from './entry-at.js'
import { serverStream, unary } from './rpc.js'
import { watchFolder, watchRequest } from './watch-folder.js'

const pathRequest = z.object({ path: z.string().default('') })
const moveRequest = z.object({ source: z.string(), destination: z.string() })
const listRequest = pathRequest.extend({ depth: z.int().nonnegative().default(1) })

/** envd's `filesystem.Filesystem` service. */
export function filesystemService(sandboxes: Sandboxes): {
  unary: Record<string, Handler>
  streams: Record<string, Handler>
} {
  return {
    unary: {
      'POST /filesystem.Filesystem/Stat': unary(
        sandboxes,
        pathRequest,
        async ({ sandbox, user, message }) => ({
          entry: await entryAt(sandbox, expandPath(message.path, user)),
        }),
      ),
      'POST /filesystem.Filesystem/MakeDir': unary(
        sandboxes,
        pathRequest,
        async ({ sandbox, user, message }) => {
          const path = expandPath(message.path, user)
          await makeFolder(sandbox.live().jail.root, path)
          return { entry: await entryAt(sandbox, path) }
        },
      ),
      'POST /filesystem.Filesystem/Move': unary(
        sandboxes,
        moveRequest,
        async ({ sandbox, user, message }) => {
          const [from, to] = [expandPath(message.source, user), expandPath(message.destination, user)]
          return { entry: await entryAt(sandbox, await moveEntry(sandbox.live().jail.root, from, to)) }
        },
      ),
      'POST /filesystem.Filesystem/ListDir': unary(
        sandboxes,
        listRequest,
        async ({ sandbox, user, message }) => {
          const { root } = sandbox.live().jail
          const found = await listFolder(root, expandPath(message.path, user), Math.max(1, message.depth))
          const entries: EntryInfo[] = []
          for (const { path, stat } of found) entries.push(await entryOf(sandbox, path, stat))
          return { entries }
        },
      ),
      'POST /filesystem.Filesystem/Remove': unary(
        sandboxes,
        pathRequest,
        async ({ sandbox, user, message }) => {
          await removeEntry(sandbox.live().jail.root, expandPath(message.path, user))
          return {}
        },
      ),
    },
    streams: {
      'POST /filesystem.Filesystem/WatchDir': serverStream(sandboxes, watchRequest, watchFolder),
    },
  }
}
