import { once } from 'node:events'
import { closeSync, openSync, writeSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Outcome, Report } from './messages.js'
import { lifeOf } from './plan.js'

/** What sandboxes reported; each report is on the laboratory's own disk before it is answered. */
export class Ledger {
  readonly #server: Server
  readonly #file: number
  readonly #seen = new Set<string>()
  readonly outcomes: Outcome[] = []
  /** Operations that need no further attempt. */
  readonly done = new Set<number>()
  /** Lives in which the declared output was written. */
  readonly finished = new Set<string>()
  /** Whether workers that hold may go on. */
  letsGo = false
  #onReport: (report: Report) => void = () => {}

  private constructor(path: string) {
    this.#file = openSync(path, 'a')
    this.#server = createServer((request, response) => {
      if (request.method === 'GET') {
        response.writeHead(this.letsGo ? 204 : 404).end()
        return
      }
      const chunks: Buffer[] = []
      request.on('data', (chunk: Buffer) => chunks.push(chunk))
      request.once('end', () => {
        this.#take(Buffer.concat(chunks).toString())
        response.writeHead(204).end()
      })
    })
  }

  static async open(path: string): Promise<Ledger> {
    const ledger = new Ledger(path)
    ledger.#server.listen(0, '127.0.0.1')
    await once(ledger.#server, 'listening')
    return ledger
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/`
  }

  onReport(listener: (report: Report) => void): void {
    this.#onReport = listener
  }

  async close(): Promise<void> {
    const closed = once(this.#server, 'close')
    this.#server.close()
    this.#server.closeAllConnections()
    await closed
    closeSync(this.#file)
  }

  /** A connection that broke before the answer makes a sandbox repeat itself, and it is heard once. */
  #take(text: string): void {
    if (this.#seen.has(text)) return
    writeSync(this.#file, `${text}\n`)
    this.#seen.add(text)
    const report = JSON.parse(text) as Report
    if (report.kind === 'outcome') this.outcomes.push(report.outcome)
    else if (report.kind === 'done') this.done.add(report.operation)
    else this.finished.add(lifeOf(report.taskId, report.life))
    this.#onReport(report)
  }
}
