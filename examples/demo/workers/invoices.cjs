// Adds up orders per customer and fails at the first one it cannot read. Before it goes, it leaves what it had and why it
// stopped: a failed worker's work is not lost.
const { readFileSync } = require('node:fs')
const { persistResult } = require('persist-result.js')

async function main() {
  const totals = new Map()
  const [, ...lines] = readFileSync(process.argv[2], 'utf8').trimEnd().split('\n')
  let done = 0
  try {
    for (const line of lines) {
      add(line, totals)
      done += 1
    }
    await persistResult(report(totals), { name: 'totals.json', metadata: { orders: done } })
  } catch (error) {
    await persistResult(report(totals), {
      name: 'partial-totals.json',
      metadata: { status: 'partial', orders: done, of: lines.length },
    })
    const { message, stack } = error
    await persistResult(`${JSON.stringify({ error: message, stack, ordersDone: done }, null, 2)}\n`, {
      name: 'error.json',
      metadata: { status: 'failed' },
    })
    throw error
  }
}

function add(line, totals) {
  const [order, , customer, , quantity, price] = fields(line)
  const amount = Number(quantity) * Number(price)
  if (!Number.isFinite(amount)) throw new Error(`order ${order}: quantity "${quantity}" is not a number`)
  totals.set(customer, (totals.get(customer) ?? 0) + amount)
}

/** Fields of one line of CSV; a quoted field may hold commas and doubled quotes. */
function fields(line) {
  return [...line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g)].map(([, quoted, plain]) =>
    quoted === undefined ? plain : quoted.replaceAll('""', '"'),
  )
}

function report(totals) {
  const rounded = [...totals].map(([customer, total]) => [customer, Math.round(total * 100) / 100])
  return `${JSON.stringify(Object.fromEntries(rounded.sort()), null, 2)}\n`
}

main().catch((error) => {
  console.error(error)
  process.exitCode = 1
})
