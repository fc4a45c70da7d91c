import { ListObjectsV2Command, type ListObjectsV2CommandOutput } from '@aws-sdk/client-s3'
import { ConductorError } from '../../errors.js'
import { mapS3Error } from './map-s3-error.js'
import type { S3Location } from './s3-location.js'

/** Pages in a row without anything, after which a server is only playing for time; deleted versions leave some. */
const MAX_EMPTY_PAGES = 200

/** What is to be listed. */
export interface WantedKeys {
  readonly Prefix: string
  readonly Delimiter?: string | undefined
  readonly StartAfter?: string | undefined
}

/** A listing's pages, each fetched when the consumer reaches it; rejects with `PROTOCOL` when they do not advance. */
export async function* listPages(
  at: S3Location,
  wanted: WantedKeys,
  doing: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<ListObjectsV2CommandOutput, void, undefined> {
  const seen = new Set<string>()
  let ContinuationToken: string | undefined
  let emptyPages = 0
  for (;;) {
    signal?.throwIfAborted()
    const command = new ListObjectsV2Command({ Bucket: at.bucket, ...wanted, ContinuationToken })
    let page: ListObjectsV2CommandOutput
    try {
      page = await at.client.send(command, signal === undefined ? {} : { abortSignal: signal })
    } catch (error) {
      throw mapS3Error(error, doing, signal)
    }
    yield page
    if (page.IsTruncated !== true) return
    const { Contents = [], CommonPrefixes = [], NextContinuationToken: next } = page
    emptyPages = Contents.length + CommonPrefixes.length === 0 ? emptyPages + 1 : 0
    if (next === undefined || seen.has(next) || emptyPages > MAX_EMPTY_PAGES) {
      throw new ConductorError('PROTOCOL', `${doing} does not advance`)
    }
    seen.add(next)
    ContinuationToken = next
  }
}
