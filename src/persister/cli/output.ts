import { writeSync } from 'node:fs'
import { ConductorError, isConductorError } from '../../errors.js'
import { systemCode } from '../../files/system-code.js'
import type { ResultRecord } from '../../protocol/record.js'
import { describeError } from '../fs-error.js'

/** Exit statuses; the usage text documents them. */
export const EXIT = { stored: 0, failed: 1, usage: 2, notWhereRequired: 3 } as const

/** Resolves when standard error has taken every remark. */
let said: Promise<void> = Promise.resolve()

/** Writes one line for people to standard error. */
export function remark(line: string): void {
  const bytes = Buffer.from(`persist-result: ${line.replace(/\s*[\r\n]+\s*/g, ' ')}\n`)
  try {
    const rest = writeAtOnce(2, bytes)
    if (rest.length === 0) return
    said = new Promise((done) => {
      lenient(process.stderr).write(rest, () => done())
    })
  } catch {
    // Nobody is there to be told, which changes nothing about what is stored.
  }
}

/** A stream of this process whose reader may close its end early without that ending in a stack trace. */
export function lenient<S extends NodeJS.WriteStream>(stream: S): S {
  if (stream.listenerCount('error') === 0) stream.on('error', () => {})
  return stream
}

/** Writes to a descriptor without the stream that Node would make for it; gives what a full pipe left over. */
function writeAtOnce(descriptor: 1 | 2, bytes: Uint8Array): Uint8Array {
  let done = 0
  try {
    while (done < bytes.length) done += writeSync(descriptor, bytes, done)
  } catch (error) {
    if (systemCode(error) !== 'EAGAIN') throw error
  }
  return bytes.subarray(done)
}

/** Says in one line what went wrong. */
export function complain(error: unknown): void {
  remark(describeError(error))
}

/** Ends this process with a status once all output is taken. Taking apart what the system frees anyway would take milliseconds. */
export async function leave(status: number): Promise<never> {
  await said
  process.exit(status)
}

/** Exit status for an error: what was asked wrongly is told apart from what could not be done. */
export function exitStatusOf(error: unknown): number {
  if (!isConductorError(error)) return EXIT.failed
  if (error.code === 'INVALID_OPTION') return EXIT.usage
  return error.code === 'UNDELIVERED' ? EXIT.notWhereRequired : EXIT.failed
}

/** Writes to standard output and waits until it is taken; a reader that went away is an error. */
export async function print(text: string | Uint8Array): Promise<void> {
  try {
    const rest = writeAtOnce(1, typeof text === 'string' ? Buffer.from(text) : text)
    if (rest.length > 0) await printRest(rest)
  } catch (error) {
    throw new ConductorError('UNAVAILABLE', 'cannot write to standard output', { cause: error })
  }
}

async function printRest(bytes: Uint8Array): Promise<void> {
  await new Promise<void>((done, fail) => {
    lenient(process.stdout).write(bytes, (error) => (error ? fail(error) : done()))
  })
}

/** Prints a record as a line of JSON, or its key. */
export async function printRecord(record: ResultRecord, json: boolean): Promise<void> {
  await print(json ? `${JSON.stringify(record)}\n` : `${record.key}\n`)
}
