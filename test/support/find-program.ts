import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'

/** Full path of a program, or `undefined` when it is not installed. */
export function findProgram(name: string): string | undefined {
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    try {
      accessSync(join(folder, name), constants.X_OK)
      return join(folder, name)
    } catch {
      // Not in this folder.
    }
  }
  return undefined
}
