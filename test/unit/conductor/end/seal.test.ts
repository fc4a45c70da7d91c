import { expect, it } from 'vitest'
import { type SealOptions, sealTask } from '../../../../src/conductor/end/seal.js'
import type { Manifest } from '../../../../src/protocol/manifest.js'
import type { ManifestStore } from '../../../../src/stores/manifest-store.js'
import { recordFor } from '../../../support/records.js'

/** Manifests of one task, in memory. */
function memoryManifests(): ManifestStore {
  let present: Manifest | undefined
  return {
    name: 'memory',
    read: async () => present,
    summarize: async () => undefined,
    update: async (_taskId, change) => {
      present = change(present) ?? present
      return present
    },
    delete: async () => true,
  }
}

const record = (name: string) => recordFor({ taskId: 'task', name }, Buffer.from(name))
const FIRST: SealOptions = {
  taskId: 'task',
  attempt: 1,
  sandboxId: 'a',
  spawnId: 'one',
  exit: { outcome: 'lost', exitCode: null, signal: null, cause: 'sandbox_vanished' },
  records: [record('early')],
  drained: false,
}
const SECOND: SealOptions = {
  taskId: 'task',
  attempt: 2,
  sandboxId: 'b',
  spawnId: 'two',
  exit: { outcome: 'succeeded', exitCode: 0, signal: null },
  records: [record('late')],
  drained: true,
}

it('tells the end of the last sandbox, whenever that of an earlier one is written down', async () => {
  const manifests = memoryManifests()
  // A reader who took it for complete would not look for what the first one left.
  expect(await sealTask(manifests, SECOND)).toMatchObject({ complete: false })
  const sealed = await sealTask(manifests, { ...FIRST, records: [record('early'), record('late')] })
  expect(sealed).toMatchObject({ outcome: 'succeeded', exit: { code: 0 } })
  const told = sealed.attempts.map(({ attempt, keys }) => [attempt, keys])
  expect(told).toEqual([
    [2, [record('late').key]],
    [1, [record('early').key]],
  ])
})

it('keeps what was said of a sandbox by who finished it before', async () => {
  const manifests = memoryManifests()
  await sealTask(manifests, { ...SECOND, records: [record('late'), record('death-certificate.json')] })
  const sealed = await sealTask(manifests, SECOND)
  expect(sealed.attempts[0]?.keys).toEqual([record('late').key, record('death-certificate.json').key])
})

it('takes the word of who saw it for that of who only missed it', async () => {
  const manifests = memoryManifests()
  await sealTask(manifests, { ...FIRST, sandboxId: '', exit: { ...FIRST.exit, cause: 'unknown' } })
  expect((await sealTask(manifests, FIRST)).attempts).toMatchObject([{ sandbox_id: '', cause: 'unknown' }])
  const found = { ...FIRST, exit: SECOND.exit, drained: true }
  expect((await sealTask(manifests, found)).attempts).toMatchObject([
    { sandbox_id: 'a', outcome: 'succeeded', cause: null },
  ])
})

it('does not call complete what was given up: a store may have taken it without a word', async () => {
  const undelivered = [{ key: record('near').key, reason: 'S3 is away' }]
  const only = { ...SECOND, attempt: 1 }
  expect(await sealTask(memoryManifests(), { ...only, undelivered })).toMatchObject({ complete: false })
  expect(await sealTask(memoryManifests(), { ...only, undelivered: [] })).toMatchObject({ complete: true })
})

it('does not call complete what a command may have added to whose end nobody saw', async () => {
  for (const [outcome, complete] of [
    ['killed', false],
    ['idle', true],
  ] as const) {
    const end = { ...SECOND, attempt: 1, exit: { outcome, exitCode: null, signal: null } }
    expect(await sealTask(memoryManifests(), end)).toMatchObject({ complete })
  }
})
