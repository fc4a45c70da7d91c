import { formatBytes, formatTable } from './format.js'

/**
 * What the demo found out.
 *
 * @typedef {object} Report
 * @property {readonly import('stu-conductor').Receipt[]} receipts
 * @property {readonly import('./read-back.js').Found[]} found
 * @property {readonly import('./checks.js').Check[]} checks
 */

/**
 * The report of a demo that broke off.
 *
 * @param {string} detail
 * @returns {Report}
 */
export function brokenOff(detail) {
  return { receipts: [], found: [], checks: [{ name: 'the demo ran to its end', ok: false, detail }] }
}

/** @param {Report} report */
export function isAllTrue({ checks }) {
  return checks.every(({ ok }) => ok)
}

/**
 * For people.
 *
 * @param {Report} report
 * @param {import('./format.js').Style} style
 * @param {number | undefined} width
 */
export function formatReport({ found, checks }, style, width) {
  const results = formatTable(
    ['', 'result', 'tier', 'size', 'sha-256'],
    found.map(({ key, tiers, sizeBytes, sha256, verified, problem }) => [
      mark(verified),
      key,
      tiers.join(', '),
      formatBytes(sizeBytes),
      verified ? `${sha256?.slice(0, 12)}…` : problem,
    ]),
    { style, right: [3], width, isKeptWhole: isBad },
  )
  const checked = formatTable(
    ['', 'check', 'seen'],
    checks.map(({ name, ok, detail }) => [mark(ok), name, detail]),
    { style, width, isKeptWhole: isBad },
  )
  return `${paintMarks(results, style)}\n\n${paintMarks(checked, style)}\n`
}

/**
 * For programs: one line.
 *
 * @param {Report} report
 */
export function toJson(report) {
  return JSON.stringify({
    ok: isAllTrue(report),
    workers: report.receipts.map(({ taskId, outcome, exitCode }) => ({ taskId, outcome, exitCode })),
    results: report.found.map(({ key, taskId, tiers, sizeBytes, sha256, verified }) => ({
      key,
      taskId,
      tiers,
      sizeBytes,
      sha256,
      verified,
    })),
    checks: report.checks.map(({ name, ok }) => ({ name, ok })),
  })
}

/**
 * What is wrong is shown in full, however long.
 *
 * @param {readonly string[]} row
 */
function isBad([sign]) {
  return sign === mark(false)
}

/** @param {boolean} ok */
function mark(ok) {
  return ok ? '✓' : '✗'
}

/**
 * Colours the marks that lines start with, once the columns are laid out.
 *
 * @param {string} table
 * @param {import('./format.js').Style} style
 */
function paintMarks(table, style) {
  return table.replace(
    /^( *)([✓✗])/gm,
    (_, indent, sign) => indent + style(sign === '✓' ? 'green' : 'red', sign),
  )
}
