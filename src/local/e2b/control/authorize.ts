import { sameSecret } from '../envd/same-secret.js'
import type { Handler } from '../http/router.js'
import { RequestError } from '../request-error.js'

/** Lets only requests with the server's key through: whoever has it can run commands on this machine. */
export function withApiKey(
  apiKey: string,
  routes: Readonly<Record<string, Handler>>,
): Record<string, Handler> {
  const guarded = Object.entries(routes).map(([key, handler]): [string, Handler] => [
    key,
    async (context) => {
      const given = context.req.headers['x-api-key']
      if (typeof given !== 'string' || !sameSecret(given, apiKey)) {
        throw new RequestError('unauthenticated', 'Invalid API key')
      }
      await handler(context)
    },
  ])
  return Object.fromEntries(guarded)
}
