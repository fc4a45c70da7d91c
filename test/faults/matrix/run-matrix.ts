import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Cleanup } from '../cleanup.js'
import { startLocalBackend, startRgwBackend } from '../s3-backend.js'
import { startWorld } from '../world.js'
import { killConductorAtEveryStep } from './conductor-matrix.js'
import { killAtEveryStep, type MatrixReport, SCENARIOS } from './persister-matrix.js'

/** How to run the kill matrix. */
export interface RunMatrixOptions {
  readonly seed: number
  readonly s3: 'local' | 'rgw'
  /** Folder of the bundled programs. */
  readonly programs: string
  readonly distribution: string
  /** Kill at every so many-th step; a call of the shell has many times the steps of one of Node. */
  readonly every: number
  /** Only what has this in its name. */
  readonly only: string
  readonly log: (line: string) => void
}

/** Kills every program at every step, or at a share of them. */
export async function runMatrix(options: RunMatrixOptions): Promise<MatrixReport[]> {
  const { seed, programs, distribution, every, only, log } = options
  await using cleanup = new Cleanup()
  const folder = await mkdtemp(join(tmpdir(), 'faults-'))
  cleanup.defer(() => rm(folder, { recursive: true, force: true }))
  const s3 = cleanup.use(
    options.s3 === 'rgw'
      ? await startRgwBackend()
      : await startLocalBackend(join(programs, 's3-main.mjs'), join(folder, 's3'), process.env),
  )
  const hooks = { node: join(programs, 'step-hook.cjs'), shell: join(programs, 'shell-hook.sh') }
  const reports: MatrixReport[] = []
  const tellOf = (report: MatrixReport): void => {
    log(`${report.name}: ${report.kills} kills at ${report.steps} steps, ${report.problems.length} problems`)
    for (const problem of report.problems) log(`  ${problem}`)
    reports.push(report)
  }
  for (const scenario of SCENARIOS) {
    for (const program of ['node', 'sh'] as const) {
      if (!`${program}: ${scenario.name}`.includes(only)) continue
      const report = await killAtEveryStep(program, scenario, {
        seed,
        s3,
        distribution,
        hooks,
        every: program === 'sh' ? every * 8 : every,
      })
      tellOf(report)
    }
  }
  const conducts = (['terminate', 'recover', 'retry'] as const).filter((name) =>
    `conductor: ${name}`.includes(only),
  )
  if (conducts.length === 0) return reports
  await using world = await startWorld(programs, seed, options.s3)
  const sandboxed = await readFile(join(programs, 'sandboxed.cjs'), 'utf8')
  for (const scenario of conducts) {
    const report = await killConductorAtEveryStep(scenario, { seed, world, programs, sandboxed, every })
    tellOf(report)
  }
  return reports
}

/** The matrix for people. */
export function formatMatrix(reports: readonly MatrixReport[]): string {
  const lines = reports.flatMap(({ name, steps, kills, problems }) => [
    `${name.padEnd(40)}${String(kills).padStart(5)} kills at ${steps} steps, ${problems.length} problems`,
    ...problems.slice(0, 20).map((problem) => `  ${problem}`),
  ])
  return `${lines.join('\n')}\n`
}
