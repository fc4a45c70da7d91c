import { styleText } from 'node:util'

/** @typedef {(format: 'bold' | 'dim' | 'red' | 'green', text: string) => string} Style */

/**
 * Colours text for a terminal, and leaves it alone for everything else and for those who set NO_COLOR.
 *
 * @param {NodeJS.WriteStream} stream
 * @returns {Style}
 */
export function paint(stream) {
  const plain = !stream.isTTY || process.env.TERM === 'dumb' || Boolean(process.env.NO_COLOR)
  return (format, text) => (plain ? text : styleText(format, text))
}

/**
 * Columns under dim headings; lines that are longer than `width` are cut, so that a terminal does not wrap them.
 *
 * @param {readonly string[]} headings
 * @param {readonly (readonly string[])[]} rows
 * @param {object} options
 * @param {Style} options.style
 * @param {readonly number[]} [options.right] Columns that end rather than start together.
 * @param {number | undefined} [options.width]
 * @param {(row: readonly string[]) => boolean} [options.isKeptWhole]
 */
export function formatTable(headings, rows, { style, right = [], width, isKeptWhole = () => false }) {
  const widths = headings.map((heading, i) =>
    Math.max(heading.length, ...rows.map((row) => (row[i] ?? '').length)),
  )
  const line = (/** @type {readonly string[]} */ cells) => {
    const text = `  ${cells
      .map((cell, i) => (right.includes(i) ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0)))
      .join('  ')
      .trimEnd()}`
    const isCut = width !== undefined && text.length > width && !isKeptWhole(cells)
    return isCut ? `${text.slice(0, width - 1)}…` : text
  }
  return [style('dim', line(headings.map((heading) => heading.toUpperCase()))), ...rows.map(line)].join('\n')
}

/** @param {number} bytes */
export function formatBytes(bytes) {
  if (bytes < 1000) return `${bytes} B`
  if (bytes < 1_000_000) return `${(bytes / 1000).toFixed(1)} kB`
  return `${(bytes / 1_000_000).toFixed(1)} MB`
}
