import { closeSync, fstatSync, openSync, statSync } from 'node:fs'
import { basename, resolve } from 'node:path'
import { ConductorError } from '../../errors.js'
import { mapFsError } from '../fs-error.js'
import { CHUNK_BYTES } from '../spool/stage.js'
import type { Source } from './source.js'

/** Opens a file, directory or named pipe for storing; symbolic links are followed. */
export async function openPath(path: string): Promise<Source> {
  const whole = resolve(path)
  try {
    const found = statSync(whole)
    if (found.isDirectory()) {
      const { archiveDirectory } = await import('./archive.js')
      return archiveDirectory(whole, basename(whole) || 'root')
    }
    if (!found.isFile() && !found.isFIFO() && !found.isCharacterDevice()) {
      throw new ConductorError('INVALID_OPTION', `${path} is neither a file nor a directory`)
    }
    return found.isFile() ? openFile(whole) : await openDevice(whole)
  } catch (error) {
    throw mapFsError(error, `cannot read ${path}`)
  }
}

function openFile(path: string): Source {
  const file = openSync(path, 'r')
  const sizeBytes = fstatSync(file).size
  return {
    ...sourceAt(path),
    sizeBytes,
    read: () => ({ file, sizeBytes }),
    repeatable: true,
    path,
    close: async () => closeSync(file),
  }
}

/** Pipes and devices may keep whoever opens or reads them waiting, and know no positions. */
async function openDevice(path: string): Promise<Source> {
  const { open } = await import('node:fs/promises')
  const handle = await open(path, 'r')
  return {
    ...sourceAt(path),
    sizeBytes: undefined,
    read: () => ({ chunks: handle.createReadStream({ autoClose: false, highWaterMark: CHUNK_BYTES }) }),
    repeatable: false,
    path: undefined,
    close: () => handle.close(),
  }
}

function sourceAt(path: string): Pick<Source, 'defaultName' | 'archive' | 'fallbackType' | 'warnings'> {
  return {
    defaultName: basename(path) || undefined,
    archive: null,
    fallbackType: 'application/octet-stream',
    warnings: () => [],
  }
}
