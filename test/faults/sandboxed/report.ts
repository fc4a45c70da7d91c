import { request } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import type { Report } from '../messages.js'

const ATTEMPTS = 60

/** Tells the laboratory; resolves once it has written the report down, and gives up when nobody is there any more. */
export async function report(url: string, what: Report): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await send('POST', url, JSON.stringify(what))
      return
    } catch (error) {
      // A pause cuts connections; the laboratory counts a repeated report once.
      if (attempt === ATTEMPTS) throw error
      await delay(50)
    }
  }
}

/** Resolves once the laboratory lets workers go on. */
export async function untilLetGo(url: string): Promise<void> {
  for (;;) {
    try {
      await send('GET', url, '')
      return
    } catch {
      // Not yet, or the connection was cut by a pause: asked again either way.
      await delay(200)
    }
  }
}

async function send(method: 'GET' | 'POST', url: string, body: string): Promise<void> {
  await new Promise<void>((done, fail) => {
    const out = request(url, { method, agent: false, timeout: 10_000 }, (answer) => {
      answer.resume()
      if (answer.statusCode === 204) answer.once('end', done)
      else fail(new Error(`the laboratory answered ${answer.statusCode}`))
    })
    out.once('timeout', () => out.destroy(new Error('the laboratory does not answer')))
    out.once('error', fail)
    out.end(body)
  })
}
