import { open, rename, rm } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { listResults } from '../api.js'
import { mapFsError } from '../fs-error.js'
import { retrieve } from '../retrieve.js'
import type { Settings } from '../settings.js'
import { temporaryPath, writeAll } from '../spool/durable-file.js'
import { EXIT, print, printRecord } from './output.js'

/** Prints the results of a task in the spool. */
export async function listCommand(taskId: string | undefined, json: boolean): Promise<number> {
  for (const record of await listResults(taskId)) await printRecord(record, json)
  return EXIT.stored
}

/** Writes a result to standard output, or to a file that appears whole or not at all. */
export async function retrieveCommand(
  settings: Settings,
  key: string,
  output: string | undefined,
): Promise<number> {
  if (output === undefined || output === '-') await retrieve(settings, key, { take: print })
  else await retrieveToFile(settings, key, resolve(output))
  return EXIT.stored
}

async function retrieveToFile(settings: Settings, key: string, output: string): Promise<void> {
  const temporary = temporaryPath(dirname(output))
  try {
    const handle = await open(temporary, 'wx')
    try {
      let position = 0
      await retrieve(settings, key, {
        restart: async () => {
          position = 0
          await handle.truncate(0)
        },
        take: async (chunk) => {
          await writeAll(handle, chunk, position)
          position += chunk.length
        },
      })
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(temporary, output)
  } catch (error) {
    await rm(temporary, { force: true })
    throw mapFsError(error, `cannot write ${output}`)
  }
}
