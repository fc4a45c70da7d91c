import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { faultedImplementations } from '../../conformance/persister/implementations.js'
import { openS3Place } from '../../support/persister/targets.js'
import { makeWorker } from '../../support/persister/worker.js'
import { startLocalServer } from '../../support/s3/servers.js'

const CROWD = 50

describe.each(faultedImplementations)('a crowd, $name', ({ argv }) => {
  it(`stores ${CROWD} results of one name from ${CROWD} processes at once`, async (test) => {
    const place = await openS3Place(await startLocalServer())
    test.onTestFinished(() => place[Symbol.asyncDispose]())
    const worker = await makeWorker(test, argv, place.withKeys)
    const paths = Array.from({ length: CROWD }, (_, i) => join(worker.folder, `in-${i}`))
    for (const path of paths) await writeFile(path, path)
    const results = await Promise.all(paths.map((path) => worker.persist(['-n', 'same.txt', path])))
    expect(results.filter(({ status, stderr }) => status !== 0 || stderr !== '')).toEqual([])
    const keys = results.map(({ key }) => key)
    expect(new Set(keys).size).toBe(CROWD)
    expect(await place.withKeys.keys(worker.taskId)).toEqual([...keys].sort())
    for (const [i, key] of keys.entries()) {
      expect((await place.withKeys.read(key))?.bytes.toString()).toBe(paths[i])
    }
    expect((await worker.records()).every(({ stored }) => stored.length === 1)).toBe(true)
  })
})
