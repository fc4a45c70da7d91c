import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type ConnectionOpts, Sandbox, Volume } from 'e2b'
import { type EncryptionKeys, generateEncryptionKeys } from '../../src/index.js'
import { type ConnectionFault, startTcpProxy, type TcpProxy } from '../support/proxy.js'
import { Cleanup } from './cleanup.js'
import { Ledger } from './ledger.js'
import { Dice } from './random.js'
import { type S3Backend, startLocalBackend, startRgwBackend } from './s3-backend.js'
import { Service } from './service.js'

const run = promisify(execFile)
/** Room of a small disk, in bytes; a few results fill it. */
export const DISK_BYTES = 6 << 20

/** All that is around the conductor and its workers in one round, and the ways to break it. */
export interface World extends AsyncDisposable {
  /** Marks the environment of every process of the round. */
  readonly mark: string
  readonly env: NodeJS.ProcessEnv
  readonly ledger: Ledger
  readonly e2b: ConnectionOpts & { readonly apiKey: string }
  /** Rejects when the local E2B ends, which nobody asks it to. */
  readonly e2bDied: Promise<never>
  readonly s3: S3Backend
  readonly s3Proxy: TcpProxy
  /** Between conductors and E2B; the laboratory itself goes straight there. */
  readonly e2bProxy: TcpProxy
  readonly endpoint: Service
  readonly endpointFolder: string
  readonly endpointProxy: TcpProxy
  readonly encryption: EncryptionKeys
  /** Options of a conductor, as JSON can hold them; it can read what is encrypted, and its workers encrypt nothing. */
  readonly conductorOptions: Readonly<Record<string, unknown>>
  /** Faults of connections that were felt, by kind. */
  readonly connectionFaults: Record<string, number>
  /** How many connections were to have each. */
  readonly plannedConnectionFaults: Record<string, number>
  /** Turns faults of single connections off and on. */
  setConnectionFaults(on: boolean): void
  /** Lets the proxies know where the servers listen after a restart. */
  repoint(): void
  restartEndpoint(): Promise<void>
  /** Makes a volume on a small disk of its own, if this process may mount one; gives the folder of its content. */
  makeVolume(name: string): Promise<string>
  /** Why volumes are not on small disks; undefined where they are. */
  readonly noSmallDisks: string | undefined
  /** By name: the folder of its content on this machine. */
  readonly volumes: ReadonlyMap<string, string>
  sandboxes(): Promise<{ readonly id: string; readonly taskId: string }[]>
  /** Processes that are there until the round is disposed of. */
  serverPids(): number[]
}

/** Starts a round's servers; disposing ends them and removes everything. */
export async function startWorld(programs: string, seed: number, s3Kind: 'local' | 'rgw'): Promise<World> {
  const folder = await mkdtemp(join(tmpdir(), 'faults-'))
  const mark = `faults-${seed}-${randomBytes(4).toString('hex')}`
  const env: NodeJS.ProcessEnv = {
    ...process.env,
    FAULTS_RUN: mark,
    AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true',
  }
  const stack = new Cleanup()
  stack.defer(() => rm(folder, { recursive: true, force: true }))
  try {
    const ledger = await Ledger.open(join(folder, 'ledger.jsonl'))
    stack.defer(() => ledger.close())
    const e2bFolder = join(folder, 'e2b')
    const e2bService = new Service(join(programs, 'e2b-main.mjs'), [e2bFolder], env)
    stack.defer(() => e2bService.kill())
    const e2bSaid = await e2bService.start<{ url: string; env: Record<string, string> }>()
    stack.defer(() => e2bService.stop())
    const e2b = {
      apiKey: e2bSaid.env.E2B_API_KEY ?? '',
      apiUrl: e2bSaid.url,
      sandboxUrl: e2bSaid.url,
    }
    const s3 =
      s3Kind === 'rgw'
        ? await startRgwBackend()
        : await startLocalBackend(join(programs, 's3-main.mjs'), join(folder, 's3'), env)
    stack.use(s3)
    const endpointFolder = join(folder, 'http')
    await mkdir(endpointFolder)
    const tokenSecret = randomBytes(32).toString('hex')
    const endpoint = new Service(join(programs, 'endpoint-main.mjs'), [endpointFolder], {
      ...env,
      LAB_SECRET: tokenSecret,
    })
    stack.defer(() => endpoint.kill())
    let endpointUrl = (await endpoint.start<{ url: string }>()).url

    let faultsOn = false
    const connectionFaults: Record<string, number> = {}
    const plannedConnectionFaults: Record<string, number> = {}
    const rule =
      (name: string) =>
      (number: number): ConnectionFault => {
        const fault = planConnection(seed, name, number)
        if (!faultsOn || fault.kind === 'pass') return { kind: 'pass' }
        count(plannedConnectionFaults, `${name} ${fault.kind}`)
        return fault
      }
    const felt =
      (name: string) =>
      ({ kind }: ConnectionFault): void =>
        count(connectionFaults, `${name} ${kind}`)
    const proxyTo = async (name: string, url: string): Promise<TcpProxy> =>
      stack.use(await startTcpProxy(addressOf(url), rule(name), felt(name)))
    const s3Proxy = await proxyTo('s3', s3.url())
    const e2bProxy = await proxyTo('e2b', e2bSaid.url)
    const endpointProxy = await proxyTo('http', endpointUrl)

    const encryption = generateEncryptionKeys()
    const volumes = new Map<string, string>()
    let noSmallDisks: string | undefined =
      process.getuid?.() === 0 ? undefined : 'only root may mount small disks'
    stack.defer(async () => {
      for (const content of volumes.values()) await run('umount', ['-l', content]).catch(() => undefined)
    })
    return {
      mark,
      env,
      ledger,
      e2b,
      e2bDied: e2bService.died,
      s3,
      s3Proxy,
      e2bProxy,
      endpoint,
      endpointFolder,
      endpointProxy,
      encryption,
      conductorOptions: {
        id: mark,
        env: through(e2bSaid.env, e2bSaid.url, e2bProxy),
        s3: {
          bucket: s3.bucket,
          prefix: 'results',
          region: s3.region,
          credentials: s3.credentials,
          endpoint: `http://127.0.0.1:${s3Proxy.port}`,
        },
        http: { endpoint: `http://127.0.0.1:${endpointProxy.port}`, tokenSecret },
        maxWorkers: 200,
        encryption: { privateKeys: [encryption.privateKey] },
      },
      connectionFaults,
      plannedConnectionFaults,
      setConnectionFaults: (on) => {
        faultsOn = on
      },
      repoint: () => {
        s3Proxy.target = addressOf(s3.url())
        endpointProxy.target = addressOf(endpointUrl)
      },
      restartEndpoint: async () => {
        endpointUrl = (await endpoint.start<{ url: string }>()).url
      },
      makeVolume: async (name) => {
        const { volumeId } = await Volume.create(name, e2b)
        const content = join(e2bFolder, 'volumes', volumeId, 'content')
        volumes.set(name, content)
        if (noSmallDisks === undefined) {
          try {
            await run('mount', ['-t', 'tmpfs', '-o', `size=${DISK_BYTES},mode=0777`, 'tmpfs', content])
          } catch (error) {
            noSmallDisks = `cannot mount a small disk: ${String(error).split('\n')[0]}`
          }
        }
        if (noSmallDisks !== undefined) await chmod(content, 0o777)
        return content
      },
      get noSmallDisks() {
        return noSmallDisks
      },
      volumes,
      sandboxes: async () => {
        const found: { id: string; taskId: string }[] = []
        const pages = Sandbox.list(e2b)
        while (pages.hasNext) {
          for (const { sandboxId, metadata } of await pages.nextItems()) {
            found.push({ id: sandboxId, taskId: metadata['stu-task'] ?? '' })
          }
        }
        return found
      },
      serverPids: () => [e2bService.pid, endpoint.pid, s3.pid()],
      [Symbol.asyncDispose]: () => stack[Symbol.asyncDispose](),
    }
  } catch (error) {
    await stack[Symbol.asyncDispose]()
    throw error
  }
}

/** Fills a disk but for so many bytes; removing the file frees it again. */
export async function fillDisk(folder: string, ballast: number): Promise<string> {
  const path = join(folder, '.ballast')
  await writeFile(path, Buffer.alloc(ballast)).catch((error: NodeJS.ErrnoException) => {
    // As full as it gets is what was asked for.
    if (error.code !== 'ENOSPC') throw error
  })
  return path
}

function count(counts: Record<string, number>, label: string): void {
  counts[label] = (counts[label] ?? 0) + 1
}

/** Decides what becomes of a connection. Which request gets which number depends on timing. */
function planConnection(seed: number, name: string, number: number): ConnectionFault {
  const dice = new Dice(seed, 'connection', name, number)
  const afterBytes = Math.floor(10 ** (dice.fraction() * 6))
  return dice.weighted<ConnectionFault>([
    [{ kind: 'pass' }, 94],
    [{ kind: 'reset', direction: 'up', afterBytes }, 1.5],
    [{ kind: 'reset', direction: 'down', afterBytes: afterBytes % 700 }, 1.5],
    [{ kind: 'truncate', afterBytes: afterBytes % 700 }, 1],
    [{ kind: 'slow', pieceMs: dice.between(5, 60) }, 1.5],
    [{ kind: 'hang', forMs: dice.between(200, 3_000) }, 0.5],
  ])
}

/** Variables with a proxy's address in the place of its server's. */
function through(
  env: Readonly<Record<string, string>>,
  url: string,
  proxy: TcpProxy,
): Record<string, string> {
  const { origin } = new URL(url)
  const other = `http://127.0.0.1:${proxy.port}`
  return Object.fromEntries(Object.entries(env).map(([name, value]) => [name, value.replace(origin, other)]))
}

function addressOf(url: string): { host: string; port: number } {
  const { hostname, port } = new URL(url)
  return { host: hostname, port: Number(port) }
}
