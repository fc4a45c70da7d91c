import { readFileSync } from 'node:fs'
import type { JsonObject, ResultRecord } from '../../protocol/record.js'
import { undelivered } from '../api.js'
import { satisfies } from '../courier.js'
import { mapFsError } from '../fs-error.js'
import { parseMetadata } from '../input.js'
import { persist, resolveTaskId } from '../persist.js'
import type { Settings } from '../settings.js'
import { openStream } from '../source/content-source.js'
import { openPath } from '../source/path-source.js'
import type { StoreRequest } from './arguments.js'
import { complain, EXIT, exitStatusOf, printRecord, remark } from './output.js'
import { startProgress } from './progress.js'

function readMetadata(argument: string | undefined): JsonObject {
  if (argument === undefined) return {}
  if (!argument.startsWith('@')) return parseMetadata(argument)
  const path = argument.slice(1)
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    throw mapFsError(error, `cannot read metadata from ${path}`)
  }
  return parseMetadata(text)
}

async function storeOne(
  settings: Settings,
  request: StoreRequest,
  path: string,
  metadata: JsonObject,
): Promise<ResultRecord> {
  const taskId = resolveTaskId(request.taskId, settings)
  const source = path === '-' ? openStream(process.stdin) : await openPath(path)
  const progress = startProgress(request.name ?? path, source.sizeBytes, request.quiet)
  try {
    const description = { taskId, name: request.name, metadata, contentType: request.contentType }
    return await persist(settings, source, description, request.require, { onSent: progress.sent })
  } finally {
    progress.end()
    await source.close()
  }
}

/** Keeps for the next call what V8 has compiled for this one; the bundler puts it in. */
declare const keepCode: () => void

/** Stores each path; one that fails does not keep the others from being stored. The worst outcome is the exit status. */
export async function storePaths(settings: Settings, request: StoreRequest): Promise<number> {
  const metadata = readMetadata(request.metadata)
  let worst: number = EXIT.stored
  const note = (status: number): void => {
    const severity: readonly number[] = [EXIT.stored, EXIT.notWhereRequired, EXIT.failed, EXIT.usage]
    if (severity.indexOf(status) > severity.indexOf(worst)) worst = status
  }
  for (const path of request.paths) {
    try {
      const record = await storeOne(settings, request, path, metadata)
      // Stored is stored, also when nobody is left to read the key.
      await printRecord(record, request.json).catch(complain)
      if (!satisfies(record, request.require)) {
        complain(undelivered(record, request.require))
        note(EXIT.notWhereRequired)
      } else if (record.stored.length === 0 && !request.quiet) {
        remark(`${record.key} is only in the local spool so far`)
      }
    } catch (error) {
      complain(error)
      note(exitStatusOf(error))
    }
  }
  keepCode()
  return worst
}
