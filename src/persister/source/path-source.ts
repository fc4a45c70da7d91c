import { open, stat } from 'node:fs/promises'
import { basename, resolve } from 'node:path'
import { ConductorError } from '../../errors.js'
import { mapFsError } from '../fs-error.js'
import { CHUNK_BYTES } from '../spool/stage.js'
import type { Source } from './source.js'

/** Opens a file, directory or named pipe for storing; symbolic links are followed. */
export async function openPath(path: string): Promise<Source> {
  const whole = resolve(path)
  const defaultName = basename(whole) || undefined
  try {
    const found = await stat(whole)
    if (found.isDirectory()) {
      const { archiveDirectory } = await import('./archive.js')
      return archiveDirectory(whole, defaultName ?? 'root')
    }
    if (!found.isFile() && !found.isFIFO() && !found.isCharacterDevice()) {
      throw new ConductorError('INVALID_OPTION', `${path} is neither a file nor a directory`)
    }
    const handle = await open(whole, 'r')
    const regular = found.isFile()
    return {
      defaultName,
      archive: null,
      fallbackType: 'application/octet-stream',
      sizeBytes: regular ? found.size : undefined,
      // Pipes and devices cannot be read at a position; a stream takes them as they come.
      read: () =>
        regular
          ? { file: handle }
          : { chunks: handle.createReadStream({ autoClose: false, highWaterMark: CHUNK_BYTES }) },
      repeatable: regular,
      path: regular ? whole : undefined,
      warnings: () => [],
      close: () => handle.close(),
    }
  } catch (error) {
    throw mapFsError(error, `cannot read ${path}`)
  }
}
