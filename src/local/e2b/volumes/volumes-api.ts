import { volumeRequest } from '../control/schemas.js'
import { readJson } from '../http/read-json.js'
import { sendEmpty, sendJson } from '../http/reply.js'
import type { Handler } from '../http/router.js'
import type { StoredVolume, VolumeStore } from './volume-store.js'

/** E2B's control plane for volumes. `inUse` says whether a sandbox has a volume mounted. */
export function volumesApi(volumes: VolumeStore): Record<string, Handler> {
  return {
    'POST /volumes': async ({ req, res }) => {
      const { name } = await readJson(req, volumeRequest)
      sendJson(res, 201, present(await volumes.create(name)))
    },
    'GET /volumes': ({ res }) => {
      sendJson(
        res,
        200,
        volumes.all().map(({ id, name }) => ({ volumeID: id, name })),
      )
    },
    'GET /volumes/{id}': ({ res, params }) => sendJson(res, 200, present(volumes.get(params.id ?? ''))),
    'DELETE /volumes/{id}': async ({ res, params }) => {
      await volumes.destroy(params.id ?? '')
      sendEmpty(res)
    },
  }
}

function present({ id, name, token }: StoredVolume): object {
  return { volumeID: id, name, token }
}
