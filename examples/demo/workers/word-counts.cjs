// Counts the words of a text, a few sections at a time, and saves a checkpoint after each: whatever happens to this worker,
// what it has counted so far is kept.
const { readFileSync } = require('node:fs')
const { persistResult } = require('persist-result.js')

const SECTIONS_PER_CHECKPOINT = 8

async function main() {
  const sections = readFileSync(process.argv[2], 'utf8').split(/^(?=_Qu)/m)
  const counts = new Map()
  for (let read = 0; read < sections.length; ) {
    const next = sections.slice(read, read + SECTIONS_PER_CHECKPOINT)
    for (const section of next) countWords(section, counts)
    read += next.length
    await persistResult(
      json({ sections: read, distinctWords: counts.size, top: ranked(counts).slice(0, 20) }),
      {
        name: `checkpoint-${Math.ceil(read / SECTIONS_PER_CHECKPOINT)}.json`,
        metadata: { progress: read / sections.length },
      },
    )
    console.log(`${read} of ${sections.length} sections, ${counts.size} distinct words`)
  }
  await persistResult(json(Object.fromEntries(ranked(counts))), {
    name: 'word-counts.json',
    metadata: { status: 'complete', sections: sections.length, distinctWords: counts.size },
  })
}

function countWords(text, counts) {
  for (const [word] of text.toLowerCase().matchAll(/\p{L}+(?:['’]\p{L}+)*/gu)) {
    counts.set(word, (counts.get(word) ?? 0) + 1)
  }
}

function ranked(counts) {
  return [...counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1))
}

function json(value) {
  return `${JSON.stringify(value, null, 2)}\n`
}

main().catch((error) => {
  console.error(error)
  process.exitCode = 1
})
