/**
 * Times of one contestant in milliseconds, the median first in importance.
 *
 * @typedef {{ medianMs: number, fastestMs: number, slowestMs: number }} Times
 */

/**
 * Lets contestants take turns, so that whatever else the machine does hits them alike. Warm-up rounds are not counted.
 *
 * @template {string} Name
 * @param {number} rounds
 * @param {Record<Name, (round: number) => Promise<number | void>>} contestants Each is timed, unless it gives back its own time.
 * @returns {Promise<Record<Name, Times>>}
 */
export async function sideBySide(rounds, contestants) {
  const names = /** @type {Name[]} */ (Object.keys(contestants))
  const samples = new Map(names.map((name) => [name, /** @type {number[]} */ ([])]))
  for (let round = -1; round < rounds; round += 1) {
    for (const name of names) {
      const started = performance.now()
      const ownMs = await contestants[name](round)
      const ms = ownMs ?? performance.now() - started
      if (round >= 0) samples.get(name)?.push(ms)
    }
  }
  return /** @type {Record<Name, Times>} */ (
    Object.fromEntries(names.map((name) => [name, summarise(samples.get(name) ?? [])]))
  )
}

/** @param {number[]} samples @returns {Times} */
function summarise(samples) {
  const sorted = samples.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  const medianMs = sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
  return { medianMs, fastestMs: sorted[0] ?? Number.NaN, slowestMs: sorted.at(-1) ?? Number.NaN }
}

/** @param {Times} times */
export function formatTimes({ medianMs, fastestMs, slowestMs }) {
  return `${medianMs.toFixed(0)} ms (${fastestMs.toFixed(0)} to ${slowestMs.toFixed(0)})`
}
