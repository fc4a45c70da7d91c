import { once } from 'node:events'
import { parseArgs } from 'node:util'
import { quote } from '../sandbox/quote.js'
import { onInterrupt } from './interrupts.js'

/** `stu-conductor local`: runs the development stack until it is interrupted. */
export async function runLocal(argv: string[]): Promise<number> {
  parseArgs({ args: argv, options: {} })
  const signal = onInterrupt()
  // Only this command needs the stand-ins, so only it pays for loading them.
  const { startLocalStack } = await import('../local/stack.js')
  await using stack = await startLocalStack()
  for (const [name, value] of Object.entries(stack.env))
    process.stdout.write(`export ${name}=${quote(value)}\n`)
  process.stderr.write(
    'A local E2B and S3 for development are running; set the variables above. Ctrl-C stops them.\n',
  )
  if (!signal.aborted) await once(signal, 'abort')
  return 0
}
