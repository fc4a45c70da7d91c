import { expect, it } from 'vitest'
import { type ClaimOptions, claimTask } from '../../../../src/conductor/spawn/claim-task.js'
import { ConductorError } from '../../../../src/errors.js'
import type { SandboxIntent } from '../../../../src/protocol/intent.js'
import type { ManifestStore } from '../../../../src/stores/manifest-store.js'
import type { S3Intents, StoredIntent } from '../../../../src/stores/s3/s3-intents.js'

const OWN: SandboxIntent = {
  v: 1,
  task_id: 'task',
  spawn_id: 'own',
  conductor: 'own',
  created_at: new Date().toISOString(),
}

/** Claims a task whose intent is read as these, the last one for ever, and which takes the write with the given number. */
async function claim(
  reads: readonly (StoredIntent | undefined)[],
  taken = Number.POSITIVE_INFINITY,
  more: Partial<ClaimOptions> = {},
) {
  let [read, written] = [0, 0]
  const intents = {
    read: async () => reads[Math.min(read++, reads.length - 1)],
    write: async () => {
      if (++written < taken) throw new ConductorError('EXISTS', 'not what was expected')
      return '"own"'
    },
  } as unknown as S3Intents
  const manifests = { read: async () => undefined } as unknown as ManifestStore
  const options: ClaimOptions = {
    intent: OWN,
    intents,
    manifests,
    findSandboxes: async () => [],
    removeBare: async () => false,
    waits: true,
    bury: async () => true,
    ...more,
  }
  const outcome = await claimTask(options).catch((error: unknown) => error)
  return { outcome, written }
}

const closed = (etag: string | undefined): StoredIntent => ({ intent: undefined, etag })

it('gives up on a store that refuses to replace what it shows', async () => {
  for (const there of [closed('"same"'), undefined]) {
    const { outcome, written } = await claim([there])
    expect(outcome).toMatchObject({
      code: 'UNSUPPORTED',
      message: expect.stringMatching(/cannot be replaced/),
    })
    expect(written).toBeLessThan(8)
  }
})

it('goes on as long as others get on, within reason, and while it waits for one', async () => {
  const others = Array.from({ length: 40 }, (_, i) => closed(`"${i}"`))
  expect(await claim(others, 12)).toMatchObject({ outcome: { attempt: 1 }, written: 12 })
  expect(await claim(others)).toMatchObject({ outcome: { code: 'UNAVAILABLE', retryable: true } })
  const starting: StoredIntent = { intent: { ...OWN, spawn_id: 'theirs' }, etag: '"theirs"' }
  const waited = await claim([starting, starting, closed('"over"')], 2)
  expect(waited).toMatchObject({ outcome: { attempt: 1 }, written: 2 })
})

it('takes a task whose only sandbox nobody ever came to equip, and none that an intent tells of', async () => {
  const identity = { 'stu-conductor': 'x', 'stu-task': 'task', 'stu-spawn': 'theirs', 'stu-local-dir': '/x' }
  const metadata = { ...identity, 'stu-access': 'presigned', 'stu-attempt': '1', 'stu-deadline': '1' }
  const bare = { id: 'bare', state: 'running', startedAt: new Date(0), metadata } as const
  const over = {
    findSandboxes: async () => [bare],
    removeBare: async ({ id }: { id: string }) => id === 'bare',
  }
  expect(await claim([closed('"over"')], 2, over)).toMatchObject({ outcome: { attempt: 1 }, written: 2 })
  const theirs: StoredIntent = { intent: { ...OWN, spawn_id: 'theirs' }, etag: '"theirs"' }
  expect(await claim([theirs], 2, over)).toMatchObject({ outcome: [bare], written: 1 })
})
