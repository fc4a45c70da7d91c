import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { startFolderGuard } from './guarded-process.js'
import { type S3Server, withBuckets } from './servers.js'

/** How to get Swift onto a machine, for messages. */
export const swiftSetupHint = 'run test/support/s3/install-swift.sh (Debian or Ubuntu, no root needed)'

const START_LIMIT_MS = 60_000
const PYTHON = '/usr/bin/python3'
const root = fileURLToPath(new URL('../../../.cache/swift/root', import.meta.url))
const script = fileURLToPath(new URL('./swift-server.py', import.meta.url))
const triplet = `${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu`
const packages = join(root, 'usr/lib/python3/dist-packages')

/** Whether Swift is unpacked here. */
export function hasSwift(): boolean {
  return existsSync(join(packages, 'swift')) && existsSync(PYTHON)
}

/**
 * Starts OpenStack Swift's S3 API: a store without POST policies, conditional writes or sessions. It ends with this process.
 *
 * @param maxMetadataValueBytes `max_meta_value_length` of its settings
 */
export async function startSwift(maxMetadataValueBytes = 256): Promise<S3Server> {
  if (!hasSwift()) throw new Error(`OpenStack Swift is not on this machine: ${swiftSetupHint}.`)
  const folder = await mkdtemp(join(tmpdir(), 'swift-'))
  const guard = startFolderGuard(folder)
  const credentials = { accessKeyId: 'test:tester', secretAccessKey: randomBytes(20).toString('hex') }
  const child = spawn(PYTHON, [script, folder], {
    env: {
      PATH: process.env.PATH,
      LD_LIBRARY_PATH: join(root, 'usr/lib', triplet),
      PYTHONPATH: packages,
    },
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = `${said}${text}`.slice(-4000)
  })
  child.stdin.on('error', () => undefined)
  child.stdin.write(`${JSON.stringify({ ...credentials, maxMetadataValueBytes })}\n`)
  const exited = once(child, 'exit')
  const stop = async (): Promise<void> => {
    child.stdin.end()
    await exited
    await guard.stop()
  }
  const signal = AbortSignal.timeout(START_LIMIT_MS)
  try {
    const lines = createInterface({ input: child.stdout })
    const [line] = await Promise.race([
      once(lines, 'line', { signal }) as Promise<[string]>,
      exited.then(() => Promise.reject(new Error('it ended'))),
    ])
    const { url } = JSON.parse(line) as { url: string }
    return withBuckets({
      name: 'swift',
      url,
      region: 'us-east-1',
      credentials,
      quirks: {
        presignedPayloadChecksum: false,
        ifNoneMatchOnComplete: false,
        rejectsUnsignedHeaders: true,
        checksRegion: true,
        rejectsFutureDates: false,
        acceptsChunkedTrailers: false,
        preciseAuthErrors: true,
        etagOnComplete: true,
        checksPartNumbers: true,
        ifMatchTakesQuotes: true,
        limitsMetadata: true,
        storesChecksums: false,
      },
      [Symbol.asyncDispose]: stop,
    })
  } catch (cause) {
    child.kill('SIGKILL')
    await stop()
    throw new Error(`OpenStack Swift did not start: ${said}`, { cause })
  }
}
