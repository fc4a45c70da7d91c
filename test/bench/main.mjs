// Ratios, each measured side by side in one run: npm run bench -- [--json] [NAME]…
import { readdir } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { describeMachine } from './support/machine.mjs'
import { formatReport, toJson } from './support/report.mjs'

/** @import { Entry, Outcome } from './support/entry.mjs' */

const ENTRIES = new URL('entries/', import.meta.url)

// Says nothing about what is measured here.
process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= 'true'

process.exitCode = await main()

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  const names = await listEntries()
  if (values.help) {
    process.stdout.write(
      `npm run bench -- [--json] [NAME]…\nA NAME selects every entry that contains it: ${names.join(', ')}\n`,
    )
    return 0
  }
  const unknown = positionals.filter((word) => !names.some((name) => name.includes(word)))
  if (unknown.length > 0) {
    process.stderr.write(`bench: nothing is named ${unknown.join(', ')}; there are ${names.join(', ')}\n`)
    return 2
  }
  const chosen = names.filter(
    (name) => positionals.length === 0 || positionals.some((word) => name.includes(word)),
  )
  const machine = describeMachine()
  /** @type {Outcome[]} */
  const outcomes = []
  for (const name of chosen) outcomes.push(...(await runEntry(name)))
  process.stdout.write(values.json ? `${toJson(machine, outcomes)}\n` : formatReport(machine, outcomes))
  return outcomes.some((outcome) => 'crashed' in outcome) ? 1 : 0
}

/** @param {string} name @returns {Promise<Outcome[]>} */
async function runEntry(name) {
  try {
    /** @type {{ entry: Entry }} */
    const { entry } = await import(new URL(`${name}.mjs`, ENTRIES).href)
    process.stderr.write(`measuring ${name}: ${entry.what}\n`)
    const reason = await entry.missing?.()
    if (reason !== undefined) return [{ name, skipped: reason }]
    return (await entry.run()).map((measure) => ({ ...measure, name: `${name}${measure.name}` }))
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.stack : error}\n`)
    const [line = ''] = String(error).split('\n')
    return [{ name, crashed: line }]
  }
}

/** An entry is named after its file. */
async function listEntries() {
  const files = await readdir(ENTRIES)
  return files.flatMap((file) => (file.endsWith('.mjs') ? [file.slice(0, -4)] : [])).sort()
}
