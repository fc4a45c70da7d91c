import { expect, it } from 'vitest'
import type { Receipt } from '../../../../src/conductor/end/receipt.js'
import type { Attempt, AttemptParts } from '../../../../src/conductor/worker/attempt.js'
import { Retrier } from '../../../../src/conductor/worker/retrier.js'
import { ConductorError } from '../../../../src/errors.js'

const LOSS = new ConductorError('SANDBOX_GONE', 'the sandbox is gone')

/** Replaces a lost sandbox whose end S3 cannot take at first, and then this comes of it. */
async function replace(again: (retrier: Retrier) => Promise<Receipt>): Promise<{
  readonly error: unknown
  readonly made: string[]
  readonly earlier: readonly Receipt[]
}> {
  const made: string[] = []
  let finished = 0
  const unsealed = { outcome: 'lost', sealed: false } as Receipt
  const lost = {
    record: { attempt: 1 },
    signs: { lost: () => ({ outcome: 'lost' }), certificate: () => ({}) },
    end: async () => {},
    finish: async () => (finished++ === 0 ? unsealed : again(retrier)),
  } as unknown as Attempt
  const retrier = new Retrier(
    {
      times: 1,
      renew: async ({ beforehand }) => {
        made.push('made')
        try {
          await beforehand()
        } catch (error) {
          made.push('undone')
          throw error
        }
        return {} as AttemptParts
      },
    },
    {
      begin: async () => ({ ended: Promise.resolve() }) as never,
      deadline: () => new Date(),
      onRetry: () => {},
      onGrant: () => {},
    },
  )
  const error = await retrier
    .replace(lost, LOSS, () => ({}) as Attempt)
    .then(
      () => undefined,
      (reason: unknown) => reason,
    )
  return { error, made, earlier: retrier.earlier.map(({ receipt }) => receipt) }
}

it('lets another sandbox begin while the end of the lost one still cannot be written down', async () => {
  const away = await replace(() => Promise.reject(new ConductorError('UNAVAILABLE', 'S3 is away')))
  expect(away).toMatchObject({ error: undefined, made: ['made'], earlier: [{ sealed: false }] })
  const back = await replace(async () => ({ outcome: 'lost', sealed: true }) as Receipt)
  expect(back).toMatchObject({ error: undefined, made: ['made'], earlier: [{ sealed: true }] })
})

it('undoes the next sandbox where something else goes wrong, and says what', async () => {
  const defect = new TypeError('no such thing')
  const { error, made } = await replace(() => Promise.reject(defect))
  expect(error).toMatchObject({
    code: 'SANDBOX_GONE',
    cause: defect,
    message: expect.stringMatching(/no such thing/),
  })
  expect(made).toEqual(['made', 'undone'])
  const stopped = await replace(async (retrier) => {
    retrier.stop()
    throw new ConductorError('UNAVAILABLE', 'S3 is away')
  })
  expect(stopped).toMatchObject({ error: { code: 'SANDBOX_GONE' }, made: ['made', 'undone'] })
})
