import { check, readJson } from '../http/read-json.js'
import { sendEmpty, sendJson } from '../http/reply.js'
import type { Handler } from '../http/router.js'
import { RequestError } from '../request-error.js'
import type { Sandbox } from '../sandbox/sandbox.js'
import type { Sandboxes } from '../sandbox/sandboxes.js'
import type { VolumeStore } from '../volumes/volume-store.js'
import { listSandboxes } from './list-sandboxes.js'
import { presentConnection, presentDetail, presentListed } from './present-sandbox.js'
import {
  connectRequest,
  createRequest,
  listQuery,
  metricsQuery,
  pauseRequest,
  timeoutRequest,
} from './schemas.js'

/** E2B's control plane for sandboxes. */
export function sandboxesApi(sandboxes: Sandboxes, volumes: VolumeStore): Record<string, Handler> {
  const find = ({ id = '' }: Readonly<Record<string, string>>): Sandbox => sandboxes.get(id)
  return {
    'POST /v2/sandboxes': async ({ req, res }) => {
      const body = await readJson(req, createRequest)
      const sandbox = await sandboxes.create(
        {
          templateId: body.templateID,
          metadata: body.metadata,
          envs: body.envVars,
          timeoutMs: body.timeout * 1000,
          onTimeout: body.autoPause ? 'pause' : 'kill',
          keepMemory: body.autoPauseMemory,
          autoResume: body.autoResume?.enabled ?? false,
          allowInternetAccess: body.allow_internet_access,
          network: body.network,
          volumes: body.volumeMounts,
        },
        body.volumeMounts.map(({ name, path }) => ({ source: volumes.findByName(name).folder, path })),
      )
      sendJson(res, 201, presentConnection(sandbox))
    },
    'POST /v2/sandboxes/{id}/connect': async ({ req, res, params }) => {
      const body = await readJson(req, connectRequest)
      const sandbox = find(params)
      const resumed = await sandbox.resume(body.timeout * 1000, body.memory)
      sendJson(res, resumed ? 201 : 200, presentConnection(sandbox))
    },
    'GET /v2/sandboxes': ({ res, query }) => {
      const { sandboxes: page, nextToken } = listSandboxes(
        sandboxes.all(),
        check(Object.fromEntries(query), listQuery),
      )
      sendJson(
        res,
        200,
        page.map(presentListed),
        nextToken === undefined ? {} : { 'x-next-token': nextToken },
      )
    },
    'GET /sandboxes/{id}': ({ res, params }) => sendJson(res, 200, presentDetail(find(params))),
    'DELETE /sandboxes/{id}': async ({ res, params }) => {
      const sandbox = find(params)
      if (!(await sandbox.kill())) throw new RequestError('not_found', `Sandbox ${params.id} not found`)
      sendEmpty(res)
    },
    'POST /sandboxes/{id}/timeout': async ({ req, res, params }) => {
      const { timeout } = await readJson(req, timeoutRequest)
      find(params).setTimeout(timeout * 1000)
      sendEmpty(res)
    },
    'POST /sandboxes/{id}/pause': async ({ req, res, params }) => {
      const { memory } = await readJson(req, pauseRequest)
      if (!(await find(params).pause(memory))) {
        throw new RequestError('conflict', `Sandbox ${params.id} is already paused`)
      }
      sendEmpty(res)
    },
    'GET /sandboxes/{id}/metrics': async ({ res, params, query }) => {
      const { start = 0, end = Number.POSITIVE_INFINITY } = check(Object.fromEntries(query), metricsQuery)
      const samples = await find(params).metrics()
      sendJson(
        res,
        200,
        samples.filter(({ timestampUnix }) => timestampUnix >= start && timestampUnix <= end),
      )
    },
  }
}
