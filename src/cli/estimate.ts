import { parseArgs } from 'node:util'
import { estimateCost } from '../estimate-cost.js'
import { readableBytes } from './progress.js'
import { UsageError } from './usage-error.js'

const UNITS: Readonly<Record<string, number>> = { '': 1, KB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12 }

/** `stu-conductor estimate`: what results cost in S3, by its list prices. */
export function runEstimate(argv: readonly string[]): number {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      workers: { type: 'string' },
      'bytes-per-worker': { type: 'string' },
      months: { type: 'string' },
      'results-per-worker': { type: 'string' },
      'reads-per-result': { type: 'string' },
      json: { type: 'boolean' },
    },
  })
  const { workers, 'bytes-per-worker': bytes } = values
  if (workers === undefined || bytes === undefined) {
    throw new UsageError('say --workers N --bytes-per-worker SIZE')
  }
  const options = {
    workers: amount('--workers', workers),
    bytesPerWorker: sizeOf('--bytes-per-worker', bytes),
    months: optional('--months', values.months),
    resultsPerWorker: optional('--results-per-worker', values['results-per-worker']),
    readsPerResult: optional('--reads-per-result', values['reads-per-result']),
  }
  const cost = estimateCost(options)
  if (values.json) process.stdout.write(`${JSON.stringify(cost)}\n`)
  else {
    const stored = readableBytes(options.workers * options.bytesPerWorker)
    const lines = [
      `storage  ${dollars(cost.storage)}  ${stored}, ${options.months ?? 1} month(s)`,
      `uploads  ${dollars(cost.puts)}`,
      `reads    ${dollars(cost.gets)}`,
      `total    ${dollars(cost.total)}`,
    ]
    process.stdout.write(`${lines.join('\n')}\n`)
  }
  return 0
}

function dollars(amount: number): string {
  return `$${amount.toFixed(amount < 1 ? 4 : 2)}`
}

function optional(option: string, text: string | undefined): number | undefined {
  return text === undefined ? undefined : amount(option, text)
}

function amount(option: string, text: string): number {
  if (!/^\d+(\.\d+)?$/.test(text))
    throw new UsageError(`${option} takes a number (got ${JSON.stringify(text)})`)
  return Number(text)
}

function sizeOf(option: string, text: string): number {
  const [, number, unit = ''] = /^(\d+(?:\.\d+)?) ?([KMGT]B)?$/i.exec(text) ?? []
  const factor = UNITS[unit.toUpperCase()]
  if (number === undefined || factor === undefined) {
    throw new UsageError(`${option} takes bytes, or a size such as 10MB (got ${JSON.stringify(text)})`)
  }
  return Number(number) * factor
}
