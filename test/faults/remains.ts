import { setTimeout as delay } from 'node:timers/promises'
import { Decryptor } from '../../src/encryption/decryptor.js'
import { readPrivateKeys } from '../../src/encryption/keys.js'
import { Conductor, type ConductorOptions } from '../../src/index.js'
import { S3Intents } from '../../src/stores/s3/s3-intents.js'
import { openS3Location, type S3Options } from '../../src/stores/s3/s3-location.js'
import { Checker, type Expectation } from './checker.js'
import { type Copy, countOpenUploads, visitBucket, visitFolder } from './copies.js'
import { markedProcesses } from './leaks.js'
import { isSealed, openCopy } from './opened.js'
import type { PlainlyFound } from './reading-back.js'
import type { RoundReport } from './report.js'
import { plainClient } from './s3-backend.js'
import type { World } from './world.js'

/** A conductor waits so long before it counts a worker as missed of which there is only the intent. */
const OLD_MS = 130_000

/** Sandboxes and processes that nobody ended. */
export async function findLeaks(world: World, except: ReadonlySet<string> = new Set()): Promise<string[]> {
  const sandboxes = (await world.sandboxes()).filter(({ id }) => !except.has(id))
  const servers = new Set(world.serverPids())
  return [
    ...sandboxes.map(({ id, taskId }) => `sandbox ${id} of ${taskId}`),
    ...(await markedProcesses(world.mark, servers)),
  ]
}

/** Lets two conductors at once write down what is missing of workers whose conductors were killed; says what is missing still. */
export async function recoverTwice(
  options: ConductorOptions,
  isMeant: (taskId: string) => boolean = () => true,
): Promise<string[]> {
  const s3 = openS3Location(options.s3 as S3Options)
  const intents = new S3Intents(s3)
  const open = async (): Promise<string[]> => {
    const found: string[] = []
    for await (const taskId of intents.listOpen()) if (isMeant(taskId)) found.push(taskId)
    return found
  }
  try {
    for (const taskId of await open()) {
      const there = await intents.read(taskId)
      if (there?.intent === undefined) continue
      const ageMs = Date.now() - Date.parse(there.intent.created_at)
      if (ageMs >= OLD_MS) continue
      // When the last one began is when the one before had ended, so that it cannot be made older than it is.
      if (there.intent.earlier !== undefined) await delay(OLD_MS - ageMs)
      else {
        const created_at = new Date(Date.now() - OLD_MS).toISOString()
        await intents.write({ ...there.intent, created_at }, there.etag)
      }
    }
    await using one = new Conductor(options)
    await using other = new Conductor(options)
    const both = await Promise.all([one.recover(), other.recover()])
    return [
      ...both.flatMap(({ failures }) => failures.map(({ taskId, error }) => `${taskId}: ${error.message}`)),
      ...both.flatMap(({ unlisted }) => unlisted?.message ?? []),
      ...(await open()).map((taskId) => `the end of ${taskId} is not written down`),
    ]
  } finally {
    s3.close()
  }
}

/** Reads everything back, past the SDK under test, and compares it with what was said. */
export async function checkRemains(
  { s3, endpointFolder, volumes, encryption: { privateKey } }: World,
  expected: Omit<Expectation, 'manifests'>,
): Promise<
  Pick<RoundReport, 'verdict' | 'openUploads' | 'unfinishedFiles' | 'encrypted'> & {
    readonly found: PlainlyFound
    readonly manifests: ReadonlyMap<string, string>
  }
> {
  const manifests = new Map<string, string>()
  const checker = new Checker({ ...expected, manifests })
  const decryptor = new Decryptor(readPrivateKeys('private key', privateKey))
  let encrypted = 0
  const visit = async (copy: Copy): Promise<void> => {
    if (isSealed(copy)) encrypted++
    await checker.visit(await openCopy(copy, decryptor))
  }
  const client = plainClient(s3)
  try {
    const bucket = await visitBucket(client, s3.bucket, 'results', visit)
    for (const [taskId, text] of bucket.manifests) manifests.set(taskId, text)
    const problems = [...bucket.problems]
    let unfinishedFiles = 0
    const folders = [
      [endpointFolder, 'http'] as const,
      ...[...volumes.values()].map((folder) => [folder, 'volume'] as const),
    ]
    for (const [folder, place] of folders) {
      const walked = await visitFolder(folder, place, visit)
      problems.push(...walked.problems)
      unfinishedFiles += walked.unfinished
    }
    const verdict = checker.conclude()
    verdict.corrupt.push(...problems)
    const openUploads = await countOpenUploads(client, s3.bucket)
    return { verdict, openUploads, unfinishedFiles, encrypted, found: checker.found, manifests }
  } finally {
    client.destroy()
  }
}
