import { randomInt } from 'node:crypto'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { formatMatrix, runMatrix } from './matrix/run-matrix.js'
import { MOVES } from './moves.js'
import { formatRound, isClean, type RoundReport } from './report.js'
import { type Omission, runRound } from './round.js'

const USAGE = `npm run faults -- [--operations N] [--rounds N] [--seed S] [--s3 local|rgw] [--workers N] [--minutes M] [--without WHAT]… [--json]
npm run faults -- --crash N [--take-over attach|recover] [--seed S] [--s3 local|rgw] [--json]
npm run faults -- --matrix [--every N] [--only NAME] [--seed S] [--s3 local|rgw] [--json]
Runs workers that persist known content while everything around them is broken, and checks what is left.
The seed decides every operation and every fault; what a fault hits depends on timing. Without one it is random, and printed.
WHAT is one of: ${Object.keys(MOVES).join(', ')}, binary output.
A crash kills the conductor of N workers once, and nothing else happens.
The matrix kills persist-result at each of its steps towards disk and network, or at every N-th.
`

// At once: Node's own tidying up can turn for ever around a connection that a fault left half open.
process.exit(await main())

function isOmission(name: string): name is Omission {
  return Object.hasOwn(MOVES, name) || name === 'binary output'
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      operations: { type: 'string', default: '300' },
      rounds: { type: 'string', default: '1' },
      seed: { type: 'string' },
      s3: { type: 'string', default: 'local' },
      workers: { type: 'string', default: '6' },
      minutes: { type: 'string' },
      without: { type: 'string', multiple: true, default: [] },
      crash: { type: 'string' },
      'take-over': { type: 'string' },
      matrix: { type: 'boolean', default: false },
      every: { type: 'string', default: '1' },
      only: { type: 'string', default: '' },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  if (values.help) {
    process.stdout.write(USAGE)
    return 0
  }
  const { s3 } = values
  const [operations, rounds, atOnce] = [values.operations, values.rounds, values.workers].map(Number)
  const crash = values.crash === undefined ? undefined : Number(values.crash)
  const takeOver = values['take-over']
  const firstSeed = values.seed === undefined ? randomInt(2 ** 31) : Number(values.seed)
  const without = values.without.filter(isOmission)
  const counts = [operations, rounds, atOnce]
  if (
    (s3 !== 'local' && s3 !== 'rgw') ||
    !counts.every((n) => Number.isInteger(n) && Number(n) > 0) ||
    !Number.isInteger(firstSeed) ||
    without.length < values.without.length ||
    (crash !== undefined && !(crash > 0)) ||
    (takeOver !== undefined && takeOver !== 'attach' && takeOver !== 'recover')
  ) {
    process.stderr.write(USAGE)
    return 2
  }
  const programs = dirname(fileURLToPath(import.meta.url))
  const log = (line: string): boolean => process.stderr.write(`${line}\n`)
  if (values.matrix) {
    const distribution = fileURLToPath(new URL('../../../dist/persist-result', import.meta.url))
    const matrix = await runMatrix({
      seed: firstSeed,
      s3,
      programs,
      distribution,
      every: Number(values.every),
      only: values.only,
      log,
    })
    process.stdout.write(values.json ? `${JSON.stringify(matrix, null, 2)}\n` : formatMatrix(matrix))
    return matrix.every(({ problems }) => problems.length === 0) ? 0 : 1
  }
  const reports: RoundReport[] = []
  for (let i = 0; i < Number(rounds); i++) {
    const seed = firstSeed + i
    process.stderr.write(`round ${i + 1} of ${rounds}: seed ${seed}\n`)
    const report = await runRound({
      seed,
      s3,
      operations: crash === undefined ? Number(operations) : crash * 6,
      limitMs: values.minutes === undefined ? undefined : Number(values.minutes) * 60_000,
      crashOnly: crash !== undefined,
      takeOver,
      programs,
      atOnce: crash ?? Number(atOnce),
      without,
      log,
    })
    reports.push(report)
    if (!values.json) process.stdout.write(formatRound(report))
    if (!isClean(report)) {
      const left = without.map((what) => ` --without '${what}'`).join('')
      process.stderr.write(
        `seed ${seed} broke the promise: npm run faults -- --seed ${seed} --operations ${operations} --s3 ${s3}${left}\n`,
      )
    }
  }
  if (values.json) process.stdout.write(`${JSON.stringify(reports, null, 2)}\n`)
  return reports.every(isClean) ? 0 : 1
}
