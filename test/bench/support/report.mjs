/** @import { Outcome } from './entry.mjs' */
/** @typedef {ReturnType<typeof import('./machine.mjs').describeMachine>} Machine */

/**
 * A table for people.
 *
 * @param {Machine} machine
 * @param {readonly Outcome[]} outcomes
 */
export function formatReport(machine, outcomes) {
  const rows = [['measure', 'value', 'bound', '', 'detail'], ...outcomes.map(toRow)]
  const widths = [0, 1, 2, 3].map((i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)))
  const lines = rows.map((row) =>
    row
      .map((cell, i) => (i === 1 || i === 2 ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0)))
      .join('  ')
      .trimEnd(),
  )
  const { node, platform, cores, cpu, memoryMB } = machine
  return `Node ${node} ${platform}, ${cores} cores (${cpu}), ${(memoryMB / 1000).toFixed(1)} GB\n\n${lines.join('\n')}\n`
}

/** @param {Outcome} outcome */
function toRow(outcome) {
  if ('skipped' in outcome) return [outcome.name, '', '', 'left out', outcome.skipped]
  if ('crashed' in outcome) return [outcome.name, '', '', 'CRASHED', outcome.crashed]
  const { name, value, bound, unit, detail } = outcome
  if (bound === undefined) return [name, format(value, unit), '', '', detail]
  return [name, format(value, unit), `≤ ${format(bound, unit)}`, isMet(outcome) ? 'met' : 'NOT MET', detail]
}

/**
 * @param {number} value
 * @param {'x' | 'ms' | 'KB' | 'MB' | 'requests'} unit
 */
function format(value, unit) {
  if (unit === 'x') return `${value.toFixed(2)}x`
  return `${Number(value.toFixed(value < 10 ? 2 : 0))} ${unit}`
}

/** @param {{ value: number, bound?: number }} measure */
function isMet({ value, bound = Number.POSITIVE_INFINITY }) {
  return value <= bound
}

/**
 * The same for programs.
 *
 * @param {Machine} machine
 * @param {readonly Outcome[]} outcomes
 */
export function toJson(machine, outcomes) {
  return JSON.stringify({
    machine,
    measures: outcomes.map((outcome) => ('value' in outcome ? { ...outcome, met: isMet(outcome) } : outcome)),
  })
}
