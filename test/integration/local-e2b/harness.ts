import { readdir, readFile } from 'node:fs/promises'
import { Sandbox, type SandboxOpts, type Volume } from 'e2b'
import { afterAll, beforeAll, describe } from 'vitest'
import { type LocalE2b, type LocalE2bOptions, startLocalE2b } from '../../../src/local/e2b/index.js'
import { leaveOut } from '../../support/leave-out.js'
import { choose, first } from '../../support/thorough.js'

type CreateOptions = SandboxOpts & { volumeMounts?: Record<string, Volume | string> }
export type Isolation = 'namespaces' | 'plain'

const missing = await whyNoNamespaces()
if (missing !== undefined) leaveOut('sandboxes in namespaces', missing)
/** Kinds of isolation this machine can do; what is left out is said on the console. */
const isolations: readonly Isolation[] = missing === undefined ? ['namespaces', 'plain'] : ['plain']
/** The first of them, or all when everything runs. */
export const ISOLATIONS = choose(isolations, first)
/** For tests of what only namespaces can do. */
export const describeNamespaces = describe.skipIf(missing !== undefined)

async function whyNoNamespaces(): Promise<string | undefined> {
  let reason: string | undefined
  const e2b = await startLocalE2b({
    onNotice: (line) => {
      reason = line
    },
  })
  await e2b.close()
  return reason
}

/** A server, and the real SDK pointed at it. */
export class Harness {
  readonly e2b: LocalE2b
  readonly notices: string[]
  readonly connection: { apiKey: string; apiUrl: string; sandboxUrl: string }

  constructor(e2b: LocalE2b, notices: string[]) {
    this.e2b = e2b
    this.notices = notices
    this.connection = { apiKey: e2b.env.E2B_API_KEY ?? '', apiUrl: e2b.url, sandboxUrl: e2b.url }
  }

  create(options: CreateOptions = {}): Promise<Sandbox> {
    return Sandbox.create({ ...this.connection, ...options })
  }

  /** A request as the SDK makes it to a sandbox, for what the SDK itself would never send. */
  async envd(sandbox: Sandbox, path: string, init: RequestInit = {}): Promise<Response> {
    const token = (await this.detail(sandbox)).envdAccessToken
    return fetch(`${this.e2b.url}${path}`, {
      ...init,
      headers: { 'E2b-Sandbox-Id': sandbox.sandboxId, 'X-Access-Token': token, ...init.headers },
    })
  }

  async detail(sandbox: Sandbox): Promise<{ envdAccessToken: string }> {
    const response = await fetch(`${this.e2b.url}/sandboxes/${sandbox.sandboxId}`, {
      headers: { 'X-API-KEY': this.connection.apiKey },
    })
    return (await response.json()) as { envdAccessToken: string }
  }
}

export async function startHarness(options: LocalE2bOptions = {}): Promise<Harness> {
  const notices: string[] = []
  return new Harness(await startLocalE2b({ onNotice: (line) => notices.push(line), ...options }), notices)
}

/** One server for all tests of a block; any notice it gave is a failure in the server that nobody expected. */
export function useHarness(options: LocalE2bOptions = {}): () => Harness {
  let harness: Harness | undefined
  beforeAll(async () => {
    harness = await startHarness(options)
  })
  afterAll(async () => {
    await harness?.e2b.close()
    if (harness !== undefined && harness.notices.length > 0) throw new Error(harness.notices.join('\n'))
  })
  return () => {
    if (harness === undefined) throw new Error('the server has not started')
    return harness
  }
}

/** Numbers of this machine's living processes that have `text` in their command line. */
export async function findProcesses(text: string): Promise<number[]> {
  const found: number[] = []
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    try {
      const command = await readFile(`/proc/${pid}/cmdline`, 'utf8')
      if (Number(pid) !== process.pid && command.replaceAll('\0', ' ').includes(text)) found.push(Number(pid))
    } catch {
      // It has ended meanwhile.
    }
  }
  return found
}

/** Resolves once `check` holds; rejects with the last look when it does not within half a minute. */
export async function eventually<T>(look: () => Promise<T> | T, check: (seen: T) => boolean): Promise<T> {
  const until = Date.now() + 30_000
  for (;;) {
    const seen = await look()
    if (check(seen)) return seen
    if (Date.now() > until) throw new Error(`still ${JSON.stringify(seen)} after thirty seconds`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

/** A number of seconds that no other process on this machine sleeps. */
export function uniqueSleep(): string {
  return `${1000 + Math.floor(Math.random() * 1e6)}.${process.pid}`
}
