import type { Verdict } from './checker.js'

/** What one round came to. */
export interface RoundReport {
  readonly seed: number
  readonly s3: 'local' | 'rgw'
  readonly seconds: number
  /** Operations that were done with; those of workers that were lost were done once more. */
  readonly operations: number
  /** Calls of a persister. */
  readonly calls: number
  /** Those that had an effect, by kind. */
  readonly faults: Readonly<Record<string, number>>
  /** How often each was tried. */
  readonly planned: Readonly<Record<string, number>>
  readonly workers: number
  /** How often a worker whose sandbox was lost began again in another. */
  readonly begunAgain: number
  readonly verdict: Verdict
  /** Sandboxes and processes that are still there. */
  readonly leaked: readonly string[]
  readonly openUploads: number
  readonly unfinishedFiles: number
  /** Copies that are encrypted. */
  readonly encrypted: number
  /** What conductors complained of, by kind; each was dealt with, or the round would not have ended. */
  readonly problems: Readonly<Record<string, number>>
  /** Those of them that another attempt does not solve. */
  readonly unexpected: readonly string[]
  readonly wrongOutputs: readonly string[]
  /** Persisters that stored nothing for no reason they can have. */
  readonly unstored: readonly string[]
  /** Faults that cannot but have been felt, and were not. */
  readonly unfelt: readonly string[]
  readonly notDone: readonly string[]
}

/** Whether a round kept the promise. */
export function isClean(report: RoundReport): boolean {
  return judgedOf(report).every(([, list]) => list.length === 0) && report.openUploads === 0
}

/** All that has to be nothing, by name. */
function judgedOf(report: RoundReport): readonly (readonly [string, readonly string[]])[] {
  const { lost, corrupt, duplicated, contradictions, mistold } = report.verdict
  return [
    ['lost', lost],
    ['corrupt', corrupt],
    ['duplicated keys', duplicated],
    ['contradictions', contradictions],
    ['wrong outputs', report.wrongOutputs],
    ['mistold sandboxes', mistold],
    ['not stored', report.unstored],
    ['unexpected problems', report.unexpected],
    ['faults never felt', report.unfelt],
    ['leaked', report.leaked],
  ]
}

const SHOWN = 20

/** A round for people. */
export function formatRound(report: RoundReport): string {
  const { verdict, faults } = report
  const total = Object.values(faults).reduce((sum, count) => sum + count, 0)
  const lines = [
    `seed ${report.seed}, S3 ${report.s3}, ${report.seconds.toFixed(0)} s`,
    `operations            ${report.operations} in ${report.calls} calls and ${report.workers} workers, begun again ${report.begunAgain} times`,
    `faults                ${total} that had an effect`,
    ...Object.entries(report.planned)
      .sort(([a], [b]) => a.localeCompare(b))
      .map(([kind, count]) => `  ${kind.padEnd(20)}${faults[kind] ?? 0} of ${count}`),
    `acknowledged          ${verdict.acknowledged}`,
    ...judgedOf(report).flatMap(([name, list]) => counted(name, list)),
    `uploads left open     ${report.openUploads}`,
    `gone with their sandbox, acknowledged locally only: ${verdict.goneWithSandbox}`,
    `given up by force, as the receipt says: ${verdict.givenUp}`,
    `whole but never acknowledged: ${verdict.unacknowledged}; copies cut short with who wrote them: ${verdict.cutShort}; unfinished files: ${report.unfinishedFiles}; encrypted: ${report.encrypted}`,
    ...Object.entries(report.problems).map(([what, count]) => `  ${count} × ${what}`),
    ...report.notDone.map((line) => `not tried: ${line}`),
  ]
  return `${lines.join('\n')}\n`
}

function counted(name: string, list: readonly string[]): string[] {
  const more = list.length > SHOWN ? [`  … and ${list.length - SHOWN} more`] : []
  return [`${name.padEnd(22)}${list.length}`, ...list.slice(0, SHOWN).map((line) => `  ${line}`), ...more]
}
