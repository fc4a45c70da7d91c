import { isConductorError } from '../errors.js'
import { Interrupted } from './interrupts.js'
import { UsageError } from './usage-error.js'

/**
 * Says what went wrong, and gives the exit code: 2 for wrong usage and wrong settings, else 1, or what a signal stands for.
 *
 * @param help how to ask for the help of the command that failed
 */
export function reportError(error: unknown, help: string): number {
  const [first, ...later] = inOrder(error)
  const lines = new Set([first, ...later].map(lineOf))
  process.stderr.write([...lines].map((line) => `stu-conductor: ${line}\n`).join(''))
  if (first instanceof Interrupted) return first.exitCode
  if (isConductorError(first)) return first.code === 'INVALID_OPTION' ? 2 : 1
  if (!isUsage(first)) return 1
  process.stderr.write(`see ${help}\n`)
  return 2
}

/** What failed while something was closed because of another failure comes after that. */
function inOrder(error: unknown): readonly unknown[] {
  if (!(error instanceof Error) || error.name !== 'SuppressedError') return [error]
  const { error: closing, suppressed } = error as SuppressedError
  return [...inOrder(suppressed), ...inOrder(closing)]
}

function lineOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error)
  return isConductorError(error) ? `${message} [${error.code}]` : message
}

function isUsage(error: unknown): boolean {
  // parseArgs throws TypeErrors with codes of its own.
  return (
    error instanceof UsageError ||
    (error as NodeJS.ErrnoException).code?.startsWith('ERR_PARSE_ARGS') === true
  )
}
