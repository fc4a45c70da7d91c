import { formatBytes, formatTable, paint } from './format.js'

/**
 * @typedef {object} Row
 * @property {string} name
 * @property {string} state
 * @property {number} results
 * @property {string} latest
 */

/** Shows what the workers do: a table that is redrawn on a terminal, a line per change elsewhere. */
export class Progress {
  #stream
  #live
  /** @type {Map<string, Row>} */
  #rows
  #drawnLines = 0

  /**
   * @param {NodeJS.WriteStream} stream
   * @param {readonly { readonly name: string }[]} workers
   */
  constructor(stream, workers) {
    this.#stream = stream
    this.#live = stream.isTTY && process.env.TERM !== 'dumb'
    this.#rows = new Map(
      workers.map(({ name }) => [name, { name, state: 'waiting', results: 0, latest: '' }]),
    )
  }

  /**
   * @param {string} name
   * @param {{ state: string }} change
   */
  update(name, { state }) {
    const row = this.#row(name)
    if (row.state === state) return
    row.state = state
    this.#show(`${name}: ${state}`)
  }

  /**
   * A worker stored something.
   *
   * @param {string} name
   * @param {string} resultName
   * @param {number} sizeBytes
   */
  result(name, resultName, sizeBytes) {
    const row = this.#row(name)
    row.results += 1
    row.latest = `${resultName} (${formatBytes(sizeBytes)})`
    this.#show(`${name}: stored ${row.latest}`)
  }

  /**
   * Says something that stays.
   *
   * @param {string} line
   */
  note(line) {
    if (this.#live) this.#erase()
    this.#stream.write(`${line}\n`)
    if (this.#live && this.#drawnLines > 0) this.#draw()
  }

  /** Leaves the table as it stands; what follows is written below it. */
  end() {
    this.#drawnLines = 0
  }

  /** @param {string} line */
  #show(line) {
    if (!this.#live) {
      this.#stream.write(`  ${line}\n`)
      return
    }
    this.#erase()
    this.#draw()
  }

  #erase() {
    if (this.#drawnLines > 0) this.#stream.write(`\x1b[${this.#drawnLines}A\x1b[0J`)
  }

  #draw() {
    const style = paint(this.#stream)
    const table = formatTable(
      ['worker', 'state', 'results', 'latest'],
      [...this.#rows.values()].map(({ name, state, results, latest }) => [
        name,
        state,
        String(results),
        latest,
      ]),
      { style, right: [2], width: this.#stream.columns },
    )
    this.#stream.write(`${table}\n`)
    this.#drawnLines = table.split('\n').length
  }

  /** @param {string} name */
  #row(name) {
    const row = this.#rows.get(name)
    if (row === undefined) throw new Error(`no worker is named ${name}`)
    return row
  }
}
