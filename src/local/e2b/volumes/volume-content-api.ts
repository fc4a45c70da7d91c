import type { BigIntStats } from 'node:fs'
import { constants } from 'node:fs'
import { open, readlink } from 'node:fs/promises'
import { z } from 'zod'
import { sameSecret } from '../envd/same-secret.js'
import { ensureFolder, makeFolder, openFile, removeEntry, writeFile } from '../files/file-operations.js'
import { listFolder } from '../files/list-folder.js'
import { check, readJson } from '../http/read-json.js'
import { sendEmpty, sendJson } from '../http/reply.js'
import type { Handler, Refuse, RouteContext } from '../http/router.js'
import { sendFile } from '../http/send-file.js'
import { RequestError } from '../request-error.js'
import type { StoredVolume, VolumeStore } from './volume-store.js'

const flag = z.enum(['true', 'false']).transform((text) => text === 'true')
const query = z.object({
  path: z.string().default('/'),
  depth: z.coerce.number().int().min(1).default(1),
  mode: z.coerce.number().int().min(0).max(0o7777).optional(),
  force: flag.default(false),
})
const metadata = z.object({
  uid: z.int().nonnegative().optional(),
  gid: z.int().nonnegative().optional(),
  mode: z.int().min(0).max(0o7777).optional(),
})

/** The code in the volume content API's errors is text. */
export const refuseVolumeContent: Refuse = (res, error) => {
  sendJson(res, error.status, { code: error.code, message: error.message })
}

/** E2B's API for what is in a volume, which needs no sandbox. Owners are accepted and not kept: everything is the server's user's. */
export function volumeContentApi(volumes: VolumeStore): Record<string, Handler> {
  const on =
    (
      serve: (volume: StoredVolume, options: z.output<typeof query>, context: RouteContext) => Promise<void>,
    ): Handler =>
    async (context) => {
      const volume = enterVolume(volumes, context)
      const options = check(Object.fromEntries(context.query), query)
      await serve(volume, { ...options, path: `/${options.path}` }, context)
    }
  return {
    'GET /volumecontent/{id}/path': on(async (volume, { path }, { res }) => {
      sendJson(res, 200, await statOf(volume, path))
    }),
    'PATCH /volumecontent/{id}/path': on(async (volume, { path }, { req, res }) => {
      const { mode } = await readJson(req, metadata)
      if (mode !== undefined) await changeMode(volume, path, mode)
      sendJson(res, 200, await statOf(volume, path))
    }),
    'DELETE /volumecontent/{id}/path': on(async (volume, { path }, { res }) => {
      if (!(await removeEntry(volume.root, path))) {
        throw new RequestError('not_found', `path '${path}' does not exist`)
      }
      sendEmpty(res)
    }),
    'GET /volumecontent/{id}/dir': on(async (volume, { path, depth }, { res }) => {
      const found = await listFolder(volume.root, path, depth)
      sendJson(res, 200, await Promise.all(found.map(({ path, stat }) => present(volume, path, stat))))
    }),
    'POST /volumecontent/{id}/dir': on(async (volume, { path, mode, force }, { res }) => {
      if (force) await ensureFolder(volume.root, path, mode)
      else {
        await requireParent(volume, path)
        await makeFolder(volume.root, path, mode)
      }
      sendJson(res, 201, await statOf(volume, path))
    }),
    'GET /volumecontent/{id}/file': on(async (volume, { path }, { req, res }) => {
      const { handle, stat } = await openFile(volume.root, path)
      await sendFile(req, res, {
        handle,
        sizeBytes: Number(stat.size),
        name: path.slice(path.lastIndexOf('/') + 1),
      })
    }),
    'PUT /volumecontent/{id}/file': on(async (volume, { path, mode, force }, { req, res }) => {
      await writeFile(volume.root, path, req, {
        makeParents: force,
        exclusive: !force,
        ...(mode === undefined ? {} : { mode }),
      })
      sendJson(res, 201, await statOf(volume, path))
    }),
  }
}

function enterVolume(volumes: VolumeStore, { req, params }: RouteContext): StoredVolume {
  const volume = volumes.get(params.id ?? '')
  const [scheme, token = ''] = (req.headers.authorization ?? '').split(' ')
  if (scheme?.toLowerCase() !== 'bearer' || !sameSecret(token, volume.token)) {
    throw new RequestError('unauthenticated', 'invalid volume token')
  }
  return volume
}

async function requireParent({ root }: StoredVolume, path: string): Promise<void> {
  await root.at(path, {}, async () => {})
}

async function changeMode({ root }: StoredVolume, path: string, mode: number): Promise<void> {
  await root.at(path, {}, async ({ at, stat }) => {
    if (stat === undefined) throw new RequestError('not_found', `path '${path}' does not exist`)
    // Through a handle: chmod(2) on a name would follow a link that has taken its place.
    const handle = await open(at, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    try {
      await handle.chmod(mode)
    } finally {
      await handle.close()
    }
  })
}

async function statOf(volume: StoredVolume, path: string): Promise<object> {
  const found = await volume.root.at(path, { follow: false }, async ({ path, stat }) => ({ path, stat }))
  if (found.stat === undefined) throw new RequestError('not_found', `path '${path}' does not exist`)
  return present(volume, found.path, found.stat)
}

async function present({ root }: StoredVolume, path: string, stat: BigIntStats): Promise<object> {
  const target = stat.isSymbolicLink()
    ? await root.at(path, { follow: false }, ({ at }) => readlink(at))
    : undefined
  return {
    name: path.slice(path.lastIndexOf('/') + 1),
    type: typeOf(stat),
    path,
    size: Number(stat.size),
    mode: Number(stat.mode & 0o7777n),
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    atime: stat.atime.toISOString(),
    mtime: stat.mtime.toISOString(),
    ctime: stat.ctime.toISOString(),
    ...(target === undefined ? {} : { target }),
  }
}

function typeOf(stat: BigIntStats): string {
  if (stat.isFile()) return 'file'
  if (stat.isDirectory()) return 'directory'
  return stat.isSymbolicLink() ? 'symlink' : 'unknown'
}
