import { createHash } from 'node:crypto'
import pLimit from 'p-limit'
import { Conductor } from '../../src/index.js'
import { volumeOf } from './moves.js'
import type { World } from './world.js'

const READS = 8
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** What the SDK under test reads back of all tasks, after it moved up what lay on lesser tiers. */
export interface ReadBack {
  /** By key: digest of the content it gave. */
  readonly digests: ReadonlyMap<string, string>
  readonly problems: readonly string[]
}

/** What lies where, as somebody found it who knows nothing of the SDK. */
export type PlainlyFound = ReadonlyMap<
  string,
  { readonly content: string; readonly places: ReadonlySet<string> }
>

/** Moves everything up and reads it back, as a user of the SDK would: what is on a volume, by naming that. */
export async function readBackAll({
  conductorOptions,
  volumes,
}: Pick<World, 'conductorOptions' | 'volumes'>): Promise<ReadBack> {
  const digests = new Map<string, string>()
  const problems: string[] = []
  const readBy = async (conductor: Conductor, tasks: string | readonly string[]): Promise<void> => {
    const { failed, unavailable } = await conductor.rehome({ tasks })
    problems.push(...failed.map(({ key, error }) => `rehome of ${key}: ${error.message}`))
    const listed = await conductor.results({ tasks }).list()
    for (const { tier, error } of [...unavailable, ...listed.unavailable])
      problems.push(`reading back: ${tier}: ${error.message}`)
    const limit = pLimit(READS)
    const read = async (result: (typeof listed)[number]): Promise<void> => {
      try {
        digests.set(result.key, sha256(await result.bytes()))
      } catch (error) {
        problems.push(`reading ${result.key}: ${error}`)
      }
    }
    await Promise.all(listed.map((result) => limit(() => read(result))))
  }
  const onVolumes = [...volumes.keys()].map((name) => name.slice(volumeOf('').length))
  await using naming = new Conductor({ ...conductorOptions, volume: volumeOf('{taskId}') })
  await readBy(naming, onVolumes)
  await using conductor = new Conductor(conductorOptions)
  await readBy(conductor, '*')
  return { digests, problems }
}

/** Where both see different things, one line each. */
export function compareReadings({ digests, problems }: ReadBack, found: PlainlyFound): string[] {
  const differences = [...problems]
  for (const [key, { content, places }] of found) {
    const read = digests.get(key)
    if (read === undefined) differences.push(`${key} is in ${[...places]}, and the SDK does not list it`)
    else if (read !== content) differences.push(`${key}: the SDK reads ${read}, there is ${content}`)
    if (!places.has('s3')) differences.push(`${key} is in ${[...places]}, and was not moved up`)
  }
  for (const key of digests.keys())
    if (!found.has(key)) differences.push(`${key} is listed by the SDK, and is nowhere`)
  return differences
}
