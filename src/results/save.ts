import { randomBytes } from 'node:crypto'
import { open, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { ConductorError, type ErrorCode } from '../errors.js'

const kinds: Readonly<Record<string, ErrorCode>> = {
  ENOSPC: 'NO_SPACE',
  EDQUOT: 'NO_SPACE',
  ENOENT: 'NOT_FOUND',
  EACCES: 'ACCESS_DENIED',
  EPERM: 'ACCESS_DENIED',
  EROFS: 'ACCESS_DENIED',
}

/** Writes chunks to a file that appears under its name only once all have come; leaves nothing behind when they do not. */
export async function saveChunks(path: string, chunks: AsyncIterable<Uint8Array>): Promise<void> {
  // Beside the target, since a rename does not cross file systems; short, so that any name that fits still fits.
  const temporary = join(dirname(path), `.${randomBytes(8).toString('hex')}.part`)
  try {
    const file = await open(temporary, 'wx')
    try {
      for await (const chunk of chunks) await writeAll(file, chunk)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true })
    throw mapSaveError(error, path)
  }
}

async function writeAll(file: Awaited<ReturnType<typeof open>>, chunk: Uint8Array): Promise<void> {
  let done = 0
  while (done < chunk.length) {
    const { bytesWritten } = await file.write(chunk, done)
    done += bytesWritten
  }
}

function mapSaveError(error: unknown, path: string): unknown {
  const { code, syscall } = error as NodeJS.ErrnoException
  // Only what the file system itself said; everything else came from the source.
  if (code === undefined || syscall === undefined || error instanceof ConductorError) return error
  const kind = kinds[code] ?? 'INVALID_OPTION'
  return new ConductorError(kind, `cannot save ${basename(path)} in ${dirname(path)}: ${code}`, {
    cause: error,
  })
}
