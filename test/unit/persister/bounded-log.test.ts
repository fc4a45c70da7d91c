import { readdirSync } from 'node:fs'
import { type FileHandle, open, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
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

  it('says where and how much is missing of what the disk did not take', async (test) => {
    const folder = await scratch(test)
    const probe = await open(join(folder, 'probe'), 'w')
    await probe.close()
    const handle = Object.getPrototypeOf(probe) as FileHandle
    const real = handle.write
    // How much of a write the disk takes before it is full; what is undefined it takes.
    let room: readonly (number | undefined)[] = []
    let writes = 0
    let isFull = false
    const write = vi.spyOn(handle, 'write').mockImplementation(async function (this: FileHandle, ...args) {
      const bytes = args[0] as unknown as Buffer
      // What it keeps room for, it gives that up for.
      if (!readdirSync(folder).some((name) => name.startsWith('.tmp-')))
        return Reflect.apply(real, this, [bytes])
      const fits = isFull ? 0 : (room[writes++] ?? bytes.length)
      // What is left of a write that was cut short fails.
      isFull = !isFull && fits > 0 && fits < bytes.length
      if (fits === 0) throw Object.assign(new Error('no space'), { code: 'ENOSPC' })
      return Reflect.apply(real, this, [bytes.subarray(0, fits)])
    })
    test.onTestFinished(() => write.mockRestore())
    const remark = /\n\[persist-result: (\d+) bytes (?:left out|could not be written)\]\n/
    const chunks = fc.array(fc.integer({ min: 1, max: 70 }), { minLength: 1, maxLength: 30 })
    const faults = fc.array(fc.option(fc.nat(60), { nil: undefined }), { maxLength: 40 })
    let runs = 0
    await fc.assert(
      fc.asyncProperty(chunks, fc.integer({ min: 200, max: 500 }), faults, async (sizes, limit, when) => {
        const path = join(folder, `log-${runs++}`)
        const log = await BoundedLog.open(path, limit, 0)
        let next = 0
        const written = sizes.map((size) =>
          Buffer.from(Array.from({ length: size }, () => 33 + (next++ % 90))),
        )
        room = when
        writes = 0
        isFull = false
        for (const chunk of written) await log.write(chunk).catch(() => {})
        await log.close()
        const all = Buffer.concat(written).toString('latin1')
        const [start = '', ...more] = (await readFile(path, 'latin1')).split(remark)
        expect(all.startsWith(start)).toBe(true)
        let at = start.length
        for (let i = 0; i < more.length; i += 2) {
          at += Number(more[i])
          const kept = more[i + 1] ?? ''
          expect(all.slice(at, at + kept.length)).toBe(kept)
          at += kept.length
        }
        expect(at).toBe(all.length)
      }),
      { numRuns: 200 },
    )
    expect((await readdir(folder)).filter((name) => !/^(log-\d+|probe)$/.test(name))).toEqual([])
  })
})
