import { createHash } from 'node:crypto'
import pLimit from 'p-limit'
import { Conductor } from '../../src/index.js'
import type { World } from './world.js'

const READS = 8

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

/** Moves everything up and reads it back, as a user of the SDK would. */
export async function readBackAll({ conductorOptions }: Pick<World, 'conductorOptions'>): Promise<ReadBack> {
  await using conductor = new Conductor(conductorOptions)
  const { failed, unavailable } = await conductor.rehome()
  const problems = [
    ...failed.map(({ key, error }) => `rehome of ${key}: ${error.message}`),
    ...unavailable.map(({ tier, error }) => `rehome: ${tier}: ${error.message}`),
  ]
  const listed = await conductor.results({ tasks: '*' }).list()
  problems.push(...listed.unavailable.map(({ tier, error }) => `list: ${tier}: ${error.message}`))
  const digests = new Map<string, string>()
  const limit = pLimit(READS)
  const read = async (result: (typeof listed)[number]): Promise<void> => {
    try {
      const bytes = await result.bytes()
      digests.set(result.key, createHash('sha256').update(bytes).digest('hex'))
    } catch (error) {
      problems.push(`reading ${result.key}: ${error}`)
    }
  }
  await Promise.all(listed.map((result) => limit(() => read(result))))
  return { digests, problems }
}

/** Where both see different things, one line each. */
export function compareReadings({ digests, problems }: ReadBack, found: PlainlyFound): string[] {
  const differences = [...problems]
  for (const [key, { content, places }] of found) {
    const read = digests.get(key)
    if (read === undefined) differences.push(`${key} is in ${[...places]}, and the SDK does not list it`)
    else if (read !== content) differences.push(`${key}: the SDK reads ${read}, there is ${content}`)
    if (places.has('http') && !places.has('s3')) differences.push(`${key} is in http, and was not moved up`)
  }
  for (const key of digests.keys())
    if (!found.has(key)) differences.push(`${key} is listed by the SDK, and is nowhere`)
  return differences
}
