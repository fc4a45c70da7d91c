import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import {
  GetObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  type S3Client,
} from '@aws-sdk/client-s3'
import pLimit from 'p-limit'

/** A result as some place has it, read past the SDK under test. */
export interface Copy {
  readonly place: 's3' | 'http' | 'volume'
  readonly key: string
  readonly bytes: Buffer
  /** Of the bytes, computed here. */
  readonly sha256: string
  /** As the place says it. */
  readonly claimedSha256: string | undefined
  readonly metadata: Record<string, unknown>
}

const RECORD = '.meta.json'
const READS = 8
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** Everything under a prefix of a bucket, by plain requests of the AWS SDK; each copy is handed over and forgotten. `only` narrows it to keys that start so. */
export async function visitBucket(
  s3: S3Client,
  bucket: string,
  prefix: string,
  visit: (copy: Copy) => Promise<void>,
  only = '',
): Promise<{ readonly manifests: ReadonlyMap<string, string>; readonly problems: string[] }> {
  const keys = new Set<string>()
  for (let token: string | undefined; ; ) {
    const page = await s3.send(
      new ListObjectsV2Command({ Bucket: bucket, Prefix: `${prefix}/${only}`, ContinuationToken: token }),
    )
    for (const { Key = '' } of page.Contents ?? []) keys.add(Key.slice(prefix.length + 1))
    token = page.NextContinuationToken
    if (page.IsTruncated !== true) break
  }
  const manifests = new Map<string, string>()
  const problems: string[] = []
  const limit = pLimit(READS)
  const get = async (key: string) => {
    const object = await s3.send(new GetObjectCommand({ Bucket: bucket, Key: `${prefix}/${key}` }))
    return { object, bytes: Buffer.from((await object.Body?.transformToByteArray()) ?? []) }
  }
  const read = async (key: string): Promise<void> => {
    if (key.startsWith('.')) {
      if (key.startsWith('.tasks/'))
        manifests.set(key.slice('.tasks/'.length, -'.json'.length), (await get(key)).bytes.toString())
      return
    }
    if (key.endsWith(RECORD)) {
      // A record without its object is a death between the two; the object is what makes a result.
      return
    }
    const { object, bytes } = await get(key)
    const own = object.Metadata?.metadata
    let metadata: Record<string, unknown> = {}
    try {
      if (own !== undefined && own !== '') metadata = JSON.parse(own) as Record<string, unknown>
      else {
        const record = JSON.parse((await get(`${key}${RECORD}`)).bytes.toString()) as {
          metadata: Record<string, unknown>
        }
        metadata = record.metadata
      }
    } catch (error) {
      problems.push(`s3 ${key}: no metadata: ${error}`)
    }
    const claimedSha256 = object.Metadata?.sha256
    await visit({ place: 's3', key, bytes, sha256: sha256(bytes), claimedSha256, metadata })
  }
  await Promise.all([...keys].map((key) => limit(() => read(key))))
  return { manifests, problems }
}

/** Uploads in parts that nobody finished or gave up. */
export async function countOpenUploads(s3: S3Client, bucket: string): Promise<number> {
  const page = await s3.send(new ListMultipartUploadsCommand({ Bucket: bucket }))
  return (page.Uploads ?? []).length
}

/** What is in a folder in the layout of the spool, by walking it. */
export async function visitFolder(
  folder: string,
  place: 'http' | 'volume',
  visit: (copy: Copy) => Promise<void>,
): Promise<{ readonly problems: string[]; readonly unfinished: number }> {
  const problems: string[] = []
  let unfinished = 0
  for (const task of await readdir(folder)) {
    if (task.startsWith('.') || task === 'lost+found') continue
    const names = new Set(await readdir(join(folder, task)))
    for (const name of names) {
      if (name.startsWith('.tmp-')) unfinished++
      if (!name.endsWith(RECORD) || name.startsWith('.')) continue
      const body = name.slice(0, -RECORD.length)
      try {
        const record = JSON.parse(await readFile(join(folder, task, name), 'utf8')) as {
          key: string
          sha256: string
          metadata: Record<string, unknown>
        }
        const bytes = await readFile(join(folder, task, body))
        const { key, metadata } = record
        await visit({ place, key, bytes, sha256: sha256(bytes), claimedSha256: record.sha256, metadata })
      } catch (error) {
        problems.push(`${place} ${task}/${name}: ${error}`)
      }
    }
  }
  return { problems, unfinished }
}
