import type { RequestBody } from '../body/request-body.js'
import { S3Error } from '../errors.js'
import type { RecordWriter } from '../store/record-file.js'

const singleUploadLimitBytes = 5 * 2 ** 30

/** Throws `EntityTooLarge` for a body over the 5 GiB S3 takes in one request. */
export function checkSize(sizeBytes: number): void {
  if (sizeBytes > singleUploadLimitBytes) {
    throw new S3Error('EntityTooLarge', {
      details: { ProposedSize: String(sizeBytes), MaxSizeAllowed: String(singleUploadLimitBytes) },
    })
  }
}

/**
 * Writes a body where nobody sees it, verifies it, and only then lets `commit` publish it.
 * Whatever fails, nothing of it remains.
 */
export async function writeBody<T>(
  stage: () => Promise<RecordWriter>,
  body: Pick<RequestBody, 'chunks'>,
  commit: (writer: RecordWriter) => Promise<T>,
): Promise<T> {
  const writer = await stage()
  try {
    await writer.writeAll(body.chunks)
    return await commit(writer)
  } finally {
    await writer.discard()
  }
}
