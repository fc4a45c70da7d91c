import type { Verdict } from './checker.js'

/** What one round came to. */
export interface RoundReport {
  readonly seed: number
  readonly s3: 'local' | 'rgw'
  readonly seconds: number
  readonly operations: number
  readonly faults: Readonly<Record<string, number>>
  readonly workers: number
  /** How often a worker whose sandbox was lost began again in another. */
  readonly begunAgain: number
  readonly verdict: Verdict
  /** Sandboxes and processes that are still there. */
  readonly leaked: readonly string[]
  readonly openUploads: number
  readonly unfinishedFiles: number
  /** What conductors complained of, by kind; each was dealt with, or the round would not have ended. */
  readonly problems: Readonly<Record<string, number>>
  readonly wrongOutputs: readonly string[]
  /** Workers whose end a new conductor told, and not their output. */
  readonly unheard: number
  readonly notDone: readonly string[]
}

/** Whether a round kept the promise. */
export function isClean({ verdict, leaked, wrongOutputs }: RoundReport): boolean {
  const { lost, corrupt, duplicated, contradictions, mistold } = verdict
  const judged = [lost, corrupt, duplicated, contradictions, mistold, leaked, wrongOutputs]
  return judged.every((list) => list.length === 0)
}

const SHOWN = 20

/** A round for people. */
export function formatRound(report: RoundReport): string {
  const { verdict, faults } = report
  const total = Object.values(faults).reduce((sum, count) => sum + count, 0)
  const lines = [
    `seed ${report.seed}, S3 ${report.s3}, ${report.seconds.toFixed(0)} s`,
    `operations            ${report.operations} in ${report.workers} workers, begun again ${report.begunAgain} times`,
    `faults                ${total}`,
    ...Object.entries(faults)
      .sort(([a], [b]) => a.localeCompare(b))
      .map(([kind, count]) => `  ${kind.padEnd(20)}${count}`),
    `acknowledged          ${verdict.acknowledged}`,
    ...counted('lost', verdict.lost),
    ...counted('corrupt', verdict.corrupt),
    ...counted('duplicated keys', verdict.duplicated),
    ...counted('contradictions', verdict.contradictions),
    ...counted('wrong outputs', report.wrongOutputs),
    ...counted('mistold sandboxes', verdict.mistold),
    ...counted('leaked', report.leaked),
    `gone with their sandbox, acknowledged locally only: ${verdict.goneWithSandbox}`,
    `ended without a conductor, output not told: ${report.unheard}`,
    `whole but never acknowledged: ${verdict.unacknowledged}; uploads left open: ${report.openUploads}; unfinished files: ${report.unfinishedFiles}`,
    ...Object.entries(report.problems).map(([what, count]) => `  ${count} × ${what}`),
    ...report.notDone.map((line) => `not tried: ${line}`),
  ]
  return `${lines.join('\n')}\n`
}

function counted(name: string, list: readonly string[]): string[] {
  const more = list.length > SHOWN ? [`  … and ${list.length - SHOWN} more`] : []
  return [`${name.padEnd(22)}${list.length}`, ...list.slice(0, SHOWN).map((line) => `  ${line}`), ...more]
}
