import { verifyToken } from '../../endpoint/token.js'
import { BROKER_LIMITS, formatBrokerAnswer } from '../../protocol/broker.js'
import { readTextLimited } from '../../streams/read-text-limited.js'
import type { Answerer } from './serve-folder.js'

/** Who may ask, and who answers. */
export interface BrokerHandlerOptions {
  /** Secrets that workers' tokens are signed with; more than one while they are rotated. */
  readonly tokenSecrets: readonly string[]
  /** The broker of a task; `undefined` for a task that has ended or was never here. */
  readonly brokerOf: (taskId: string) => Answerer | undefined
}

/**
 * The broker's requests over HTTPS, in web-standard form: for conductors that are functions rather than processes. It answers
 * every request and never rejects.
 */
export function createBrokerHandler(options: BrokerHandlerOptions): (request: Request) => Promise<Response> {
  return async (request) => {
    if (request.method !== 'POST') return refuse(405, 'only POST works here', { allow: 'POST' })
    const token = /^Bearer +([^\s,]+)$/i.exec(request.headers.get('authorization') ?? '')?.[1] ?? ''
    const claims = verifyToken(token, options.tokenSecrets, new Date())
    if (typeof claims === 'string') {
      return refuse(401, `the token is ${claims === 'expired' ? 'expired' : 'not valid'}`, {
        'www-authenticate': 'Bearer',
      })
    }
    if (!claims.scope.includes('write')) return refuse(403, 'the token may not write')
    if (claims.taskId === undefined) return refuse(403, 'the token is for no task in particular')
    const broker = options.brokerOf(claims.taskId)
    if (broker === undefined) return refuse(404, 'no such task')
    let text: string | undefined
    try {
      const body = request.body ?? new Blob([]).stream()
      text = await readTextLimited(body, BROKER_LIMITS.requestBytes)
    } catch {
      // The client went away, and nobody reads this.
      return refuse(400, 'the request broke off')
    }
    if (text === undefined) return refuse(413, 'the request is too large')
    const answered = await broker.answer(text)
    if (answered === undefined) return refuse(400, 'the request has no id')
    return respond(200, formatBrokerAnswer(answered))
  }
}

function refuse(status: number, message: string, headers: Record<string, string> = {}): Response {
  return respond(status, `${message}\n`, headers)
}

function respond(status: number, text: string, headers: Record<string, string> = {}): Response {
  return new Response(text, {
    status,
    // An answer is a secret of one worker's, and good for minutes.
    headers: { 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-store', ...headers },
  })
}
