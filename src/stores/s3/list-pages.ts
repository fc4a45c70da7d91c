import { ListObjectsV2Command, type ListObjectsV2CommandOutput } from '@aws-sdk/client-s3'
import { ConductorError } from '../../errors.js'
import { joinSignals } from '../../signals.js'
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

/** A listing's pages, from the second on one fetched ahead of the consumer; rejects with `PROTOCOL` when they do not advance. */
export async function* listPages(
  at: S3Location,
  wanted: WantedKeys,
  doing: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<ListObjectsV2CommandOutput, void, undefined> {
  const left = new AbortController()
  const abortSignal = joinSignals(left.signal, signal)
  const fetchPage = async (ContinuationToken?: string): Promise<ListObjectsV2CommandOutput> => {
    signal?.throwIfAborted()
    const command = new ListObjectsV2Command({ Bucket: at.bucket, ...wanted, ContinuationToken })
    try {
      return await at.client.send(command, { abortSignal })
    } catch (error) {
      throw mapS3Error(error, doing, signal)
    }
  }
  const seen = new Set<string>()
  let coming = fetchPage()
  let emptyPages = 0
  try {
    for (;;) {
      const page = await coming
      const { IsTruncated, Contents = [], CommonPrefixes = [], NextContinuationToken: next } = page
      const advances = next !== undefined && !seen.has(next)
      // Whoever has read a page and wants more will likely want all; who stops at the first costs one request.
      const ahead = IsTruncated === true && advances && seen.size > 0 ? fetchPage(next) : undefined
      ahead?.catch(() => {})
      yield page
      if (IsTruncated !== true) return
      emptyPages = Contents.length + CommonPrefixes.length === 0 ? emptyPages + 1 : 0
      if (!advances || emptyPages > MAX_EMPTY_PAGES) {
        throw new ConductorError('PROTOCOL', `${doing} does not advance`)
      }
      seen.add(next)
      coming = ahead ?? fetchPage(next)
    }
  } finally {
    left.abort()
  }
}
