import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { BoundedLog } from '../../../src/persister/supervise/bounded-log.js'
import { scratch } from '../../support/persister/scratch.js'

describe('BoundedLog', () => {
  it('keeps all that fits, and start and end of what does not', async (test) => {
    const folder = await scratch(test)
    let runs = 0
    const chunks = fc.array(fc.integer({ min: 0, max: 70 }), { maxLength: 30 })
    await fc.assert(
      fc.asyncProperty(chunks, fc.integer({ min: 2, max: 200 }), async (sizes, limit) => {
        const path = join(folder, `log-${runs++}`)
        const log = await BoundedLog.open(path, limit)
        let next = 0
        const written = sizes.map((size) =>
          Buffer.from(Array.from({ length: size }, () => 33 + (next++ % 90))),
        )
        await Promise.all(written.map((chunk) => log.write(chunk)))
        await log.close()
        const all = Buffer.concat(written).toString('latin1')
        const text = await readFile(path, 'latin1')
        const half = Math.floor(limit / 2)
        const gap = /\n\[persist-result: (\d+) bytes left out\]\n/.exec(text)
        if (gap === null) expect(text).toBe(all)
        else {
          const start = text.slice(0, gap.index)
          const end = text.slice(gap.index + gap[0].length)
          expect(start).toBe(all.slice(0, half))
          expect(end).toBe(all.slice(-half))
          expect(Number(gap[1])).toBe(all.length - start.length - end.length)
        }
      }),
      { numRuns: 60 },
    )
    expect((await readdir(folder)).every((name) => /^log-\d+$/.test(name))).toBe(true)
  })
})
