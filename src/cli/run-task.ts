import { readFile } from 'node:fs/promises'
import { constants } from 'node:os'
import { parseArgs } from 'node:util'
import { Conductor } from '../conductor/conductor.js'
import type { Receipt } from '../conductor/end/receipt.js'
import type { Worker } from '../conductor/worker/worker.js'
import { ConductorError } from '../errors.js'
import { quote } from '../sandbox/quote.js'
import { untilAborted } from '../until-aborted.js'
import { onInterrupt } from './interrupts.js'
import { printable } from './printable.js'
import { UsageError } from './usage-error.js'

/** `stu-conductor run …`: the command's output goes where ours goes, the receipt to stderr. */
export async function runTask(argv: readonly string[]): Promise<number> {
  const end = argv.indexOf('--')
  const { values, positionals } = parseArgs({
    args: argv.slice(0, end < 0 ? argv.length : end),
    allowPositionals: true,
    options: {
      'task-id': { type: 'string' },
      output: { type: 'string', multiple: true },
      file: { type: 'string', multiple: true },
      force: { type: 'boolean' },
    },
  })
  const words = end < 0 ? [] : argv.slice(end + 1)
  // One word is a shell's own line; several are a command and its arguments, kept apart as they are.
  const command = words.length === 1 ? (words[0] ?? '') : words.map(quote).join(' ')
  if (command === '' || positionals.length > 0) throw new UsageError('run: put the command after --')
  const files = await readFiles(values.file ?? [])
  const signal = onInterrupt()
  await using conductor = new Conductor()
  const worker = await conductor.spawnWorker({
    taskId: values['task-id'],
    outputs: values.output,
    files,
    signal,
  })
  worker.on('stdout', (text) => process.stdout.write(text))
  worker.on('stderr', (text) => process.stderr.write(text))
  try {
    // Ended with its worker, which asks the command once and hears what it says to that.
    await untilAborted(worker.run(command, { outputs: values.output }), signal)
  } finally {
    printReceipt(await finish(worker, values.force))
  }
  signal.throwIfAborted()
  const { exitCode, signal: killedBy } = await worker.wait()
  return exitCode ?? 128 + (constants.signals[killedBy as NodeJS.Signals] ?? 0)
}

async function finish(worker: Worker, force: boolean | undefined): Promise<Receipt> {
  try {
    return await worker.terminate({ force })
  } catch (error) {
    const { taskId, sandboxId } = worker
    // Else closing the conductor would try the same again.
    await worker.detach()
    process.stderr.write(
      `${taskId} is not finished. Sandbox ${sandboxId} keeps what it stored: "stu-conductor results" reads it there, and a conductor's recover() finishes it\n`,
    )
    throw error
  }
}

async function readFiles(pairs: readonly string[]): Promise<Record<string, Uint8Array>> {
  const files: Record<string, Uint8Array> = {}
  for (const pair of pairs) {
    const colon = pair.lastIndexOf(':')
    if (colon < 1) throw new UsageError(`--file takes LOCAL:PATH (got ${JSON.stringify(pair)})`)
    const local = pair.slice(0, colon)
    try {
      files[pair.slice(colon + 1)] = await readFile(local)
    } catch (cause) {
      throw new ConductorError(
        'NOT_FOUND',
        `cannot read ${local}: ${(cause as NodeJS.ErrnoException).code}`,
        { cause },
      )
    }
  }
  return files
}

function printReceipt(receipt: Receipt): void {
  const lines = [`${receipt.taskId}: ${receipt.outcome}`]
  for (const { key, sizeBytes, tiers, verified } of receipt.results) {
    lines.push(`  ${printable(key)}  ${sizeBytes} bytes  ${tiers.join(',')}${verified ? '  verified' : ''}`)
  }
  for (const path of receipt.missingOutputs) lines.push(`  missing: ${printable(path)}`)
  for (const { path, reason } of receipt.failedOutputs) lines.push(`  failed: ${printable(path)}: ${reason}`)
  for (const { key, reason } of receipt.undelivered) lines.push(`  given up: ${printable(key)}: ${reason}`)
  process.stderr.write(`${lines.join('\n')}\n`)
}
