import { readFile } from 'node:fs/promises'

/**
 * @typedef {object} DemoWorker
 * @property {string} name
 * @property {string} does What it shows, in a few words.
 * @property {{ command: string, files: Record<string, string>, outputs?: string[] }} job
 * @property {{ exitCode: number, results: readonly string[] }} expected
 */

/**
 * The demo's workers, with the real files they work on.
 *
 * @returns {Promise<readonly DemoWorker[]>}
 */
export async function loadWorkers() {
  const weather = await read('input/weather.csv')
  return [
    {
      name: 'weather',
      does: 'stores one result from the shell',
      job: {
        // Where a template has no Python, the same in JavaScript.
        command: `set -e
if command -v python3 >/dev/null; then python3 weather.py weather.csv > statistics.json
else node weather.cjs weather.csv > statistics.json; fi
persist-result --metadata '{"stations": 4}' statistics.json`,
        files: {
          '/workspace/weather.csv': weather,
          '/workspace/weather.py': await read('workers/weather.py'),
          '/workspace/weather.cjs': await read('workers/weather.cjs'),
        },
      },
      expected: { exitCode: 0, results: ['statistics.json'] },
    },
    {
      name: 'word-counts',
      does: 'saves checkpoints while it works',
      job: {
        command: 'node word-counts.cjs newton-queries.txt',
        files: {
          '/workspace/newton-queries.txt': await read('input/newton-queries.txt'),
          '/workspace/word-counts.cjs': await read('workers/word-counts.cjs'),
        },
      },
      expected: {
        exitCode: 0,
        results: [1, 2, 3, 4].map((n) => `checkpoint-${n}.json`).concat('word-counts.json'),
      },
    },
    {
      name: 'plots',
      does: 'leaves a folder, which is archived',
      job: {
        command: 'node plots.cjs weather.csv plots',
        files: {
          '/workspace/weather.csv': weather,
          '/workspace/plots.cjs': await read('workers/plots.cjs'),
        },
        outputs: ['/workspace/plots'],
      },
      expected: { exitCode: 0, results: ['plots.tar.gz'] },
    },
    {
      name: 'invoices',
      does: 'fails half-way, on purpose',
      job: {
        command: 'node invoices.cjs orders.csv',
        files: {
          '/workspace/orders.csv': await read('input/orders.csv'),
          '/workspace/invoices.cjs': await read('workers/invoices.cjs'),
        },
      },
      expected: { exitCode: 1, results: ['error.json', 'partial-totals.json'] },
    },
  ]
}

/** @param {string} path */
function read(path) {
  return readFile(new URL(path, import.meta.url), 'utf8')
}
