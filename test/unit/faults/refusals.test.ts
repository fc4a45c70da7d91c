import { expect, it } from 'vitest'
import { countPersisterFaults, findUnfelt } from '../../faults/felt.js'
import type { Outcome } from '../../faults/messages.js'
import { planFault, planWorker, taskIdOf, type WorkerKind } from '../../faults/plan.js'
import { checkRefusals } from '../../faults/refusals.js'

const SEED = 1
const NO_ROOM = 'NO_SPACE: write the spool: no space left on device'
const NOT_REMOTE = 'status 3: task/key is stored (local) but not in remote'

function outcome(kind: WorkerKind, status: Outcome['status'], said?: string, operation = 0): Outcome {
  const index = Array.from({ length: 50 }, (_, i) => i).find((i) => planWorker(SEED, i).kind === kind) ?? -1
  const taskId = taskIdOf(SEED, index)
  const told = said === undefined ? {} : { said }
  return { taskId, operation, attempt: 0, via: 'node', fault: 'none', status, ...told }
}

const judge = (outcomes: readonly Outcome[], done: readonly number[] = []): number =>
  checkRefusals({ seed: SEED, outcomes, done: new Set(done) }).length

it('admits a refusal only for a reason that its worker can have', () => {
  expect(judge([outcome('remote', 'refused', NOT_REMOTE), outcome('volume', 'refused', NO_ROOM)])).toBe(0)
  expect(judge([outcome('grant', 'refused', NOT_REMOTE)])).toBe(1)
  expect(judge([outcome('keys', 'refused', NO_ROOM)])).toBe(1)
  for (const kind of ['grant', 'remote', 'volume', 'keys'] as const)
    expect(judge([outcome(kind, 'refused', 'TypeError: it always throws')]), kind).toBe(1)
})

it('tells a persister that was killed from one that crashed', () => {
  expect(judge([outcome('grant', 'killed')])).toBe(0)
  expect(judge([outcome('grant', 'crashed', 'ended with SIGSEGV')])).toBe(1)
})

it('finds operations that nobody acknowledged in the end', () => {
  const stored = outcome('remote', 'acknowledged')
  const refused = outcome('remote', 'refused', NOT_REMOTE)
  expect(judge([refused, stored], [0])).toBe(0)
  expect(judge([refused], [0])).toBe(1)
  expect(judge([outcome('grant', 'killed')], [0])).toBe(1)
  expect(judge([outcome('volume', 'refused', NO_ROOM)], [0])).toBe(0)
  // Its worker was lost over it, and another has it.
  expect(judge([refused], [])).toBe(0)
  expect(judge([], [0])).toBe(1)
})

it('counts persisters that were hit, and finds kinds that never were', () => {
  const numbers = Array.from({ length: 1_000 }, (_, i) => i)
  const kills = numbers.filter((number) => planFault(SEED, number, 0).kind === 'kill').slice(0, 30)
  const missed = kills.map((number) => outcome('grant', 'acknowledged', undefined, number))
  const { planned, felt } = countPersisterFaults(SEED, missed)
  expect(planned).toEqual({ 'kill persister': 30 })
  expect(felt).toEqual({})
  expect(findUnfelt(planned, felt)).toHaveLength(1)
  const hit = countPersisterFaults(SEED, [...missed, { ...outcome('grant', 'killed'), fault: 'kill' }])
  expect(hit.felt).toEqual({ 'kill persister': 1 })
  expect(findUnfelt(planned, hit.felt)).toEqual([])
  expect(findUnfelt({ 's3 hang': 3 }, {})).toEqual([])
})
