import { ConductorError, isConductorError } from '../../errors.js'
import type { ResultRecord } from '../../protocol/record.js'
import { describeError } from '../fs-error.js'

/** Exit statuses; the usage text documents them. */
export const EXIT = { stored: 0, failed: 1, usage: 2, notWhereRequired: 3 } as const

/** Writes one line for people to standard error. */
export function remark(line: string): void {
  process.stderr.write(`persist-result: ${line.replace(/\s*[\r\n]+\s*/g, ' ')}\n`)
}

/** Says in one line what went wrong. */
export function complain(error: unknown): void {
  remark(describeError(error))
}

/** Exit status for an error: what was asked wrongly is told apart from what could not be done. */
export function exitStatusOf(error: unknown): number {
  if (!isConductorError(error)) return EXIT.failed
  if (error.code === 'INVALID_OPTION') return EXIT.usage
  return error.code === 'UNDELIVERED' ? EXIT.notWhereRequired : EXIT.failed
}

/** Writes to standard output and waits until it is taken; a reader that went away is an error. */
export async function print(text: string | Uint8Array): Promise<void> {
  await new Promise<void>((done, fail) => {
    process.stdout.write(text, (error) => {
      if (error) fail(new ConductorError('UNAVAILABLE', 'cannot write to standard output', { cause: error }))
      else done()
    })
  })
}

/** Prints a record as a line of JSON, or its key. */
export async function printRecord(record: ResultRecord, json: boolean): Promise<void> {
  await print(json ? `${JSON.stringify(record)}\n` : `${record.key}\n`)
}
