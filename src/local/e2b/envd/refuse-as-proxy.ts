import { sendJson } from '../http/reply.js'
import type { Refuse } from '../http/router.js'
import { refuseWithJson } from '../http/server.js'

/** How plain routes of a sandbox are refused: that there is none is said by the proxy that stands before it in E2B. */
export const refuseAsProxy: Refuse = (res, error) => {
  if (error.code !== 'unavailable') return refuseWithJson(res, error)
  const sandboxId = res.req.headers['e2b-sandbox-id']
  sendJson(res, error.status, { sandboxId, message: error.message, code: error.status })
}
