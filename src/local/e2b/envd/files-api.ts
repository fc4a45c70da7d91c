import type { IncomingMessage } from 'node:http'
import { openFile } from '../files/file-operations.js'
import { sendEmpty, sendJson } from '../http/reply.js'
import type { Handler, RouteContext } from '../http/router.js'
import { sendFile } from '../http/send-file.js'
import type { Sandbox } from '../sandbox/sandbox.js'
import type { Sandboxes } from '../sandbox/sandboxes.js'
import { checkUser, enterForFile, expandPath, reachSandbox } from './access.js'
import { receiveUpload } from './receive-upload.js'

/** envd's plain HTTP routes: bytes of files, and whether it is alive. */
export function filesApi(sandboxes: Sandboxes): Record<string, Handler> {
  const download = withSandbox(
    (context) => enterForFile(sandboxes, context.req, context.query, 'read'),
    async (sandbox, { req, res, query }) => {
      const path = expandPath(query.get('path') ?? '', checkUser(query.get('username')))
      const { handle, stat } = await openFile(sandbox.live().jail.root, path)
      await sendFile(req, res, {
        handle,
        sizeBytes: Number(stat.size),
        name: path.slice(path.lastIndexOf('/') + 1),
      })
    },
  )
  const upload = withSandbox(
    (context) => enterForFile(sandboxes, context.req, context.query, 'write'),
    async (sandbox, { req, res, query }) => {
      const user = checkUser(query.get('username'))
      const written = await receiveUpload(sandbox, req, {
        path: query.get('path') ?? undefined,
        expand: (path) => expandPath(path, user),
        metadata: metadataOf(req),
      })
      sendJson(res, 200, written)
    },
  )
  return {
    'GET /health': async ({ req, res }) => {
      await reachSandbox(sandboxes, req)
      sendEmpty(res)
    },
    'GET /files': download,
    'POST /files': upload,
  }
}

function withSandbox(
  find: (context: RouteContext) => Promise<Sandbox>,
  serve: (sandbox: Sandbox, context: RouteContext) => Promise<void>,
): Handler {
  return async (context) => {
    const sandbox = await find(context)
    const done = sandbox.requests.add(context.req.socket)
    try {
      await serve(sandbox, context)
    } finally {
      done()
    }
  }
}

const METADATA_PREFIX = 'x-metadata-'

function metadataOf(req: IncomingMessage): Record<string, string> {
  return Object.fromEntries(
    Object.entries(req.headers)
      .filter(([name]) => name.startsWith(METADATA_PREFIX))
      .map(([name, value]) => [name.slice(METADATA_PREFIX.length), String(value)]),
  )
}
