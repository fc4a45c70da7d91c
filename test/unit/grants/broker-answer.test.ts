import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  type BrokerAnswer,
  brokerRequestId,
  formatBrokerAnswer,
  parseBrokerAnswer,
} from '../../../src/protocol/broker.js'

const whole: BrokerAnswer = {
  id: 'a-1',
  stored: undefined,
  error: undefined,
  uploadId: '2~up.load_id',
  expiresAt: '2026-01-14T12:00:00.000Z',
  requests: [
    {
      method: 'PUT',
      url: 'https://s3.example/b/k?X=1',
      headers: { 'content-length': '5', 'x-amz-meta-metadata': '{"a":"b  c"}' },
    },
    { part: 2, method: 'PUT', url: 'https://s3.example/b/k?partNumber=2', headers: {} },
  ],
}

describe('a broker’s answer', () => {
  it('comes out of its lines as it went in', () => {
    expect(parseBrokerAnswer('a-1', formatBrokerAnswer(whole))).toEqual(whole)
    const refused: BrokerAnswer = {
      id: 'b',
      error: { code: 'INTEGRITY', retryable: true, message: 'two parts are missing', missing: [3, 14] },
      requests: [],
    }
    expect(parseBrokerAnswer('b', formatBrokerAnswer(refused))).toEqual(refused)
    const stored: BrokerAnswer = { id: 'c', stored: 's3://b/results/ü b/x', requests: [] }
    expect(parseBrokerAnswer('c', formatBrokerAnswer(stored))).toEqual(stored)
  })

  it('is none until its last byte is there, and none of another request', () => {
    const text = formatBrokerAnswer(whole)
    for (let length = 0; length < text.length; length++) {
      expect(parseBrokerAnswer('a-1', text.slice(0, length))).toBeUndefined()
    }
    expect(parseBrokerAnswer('a-2', text)).toBeUndefined()
  })

  it('cannot be given a line by what it carries', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (message) => {
        const answer: BrokerAnswer = {
          id: 'x',
          error: { code: 'EXISTS', retryable: false, message: `m${message}`, missing: [] },
          requests: [],
        }
        const lines = formatBrokerAnswer(answer).split('\n')
        expect(lines).toHaveLength(4)
        expect(parseBrokerAnswer('x', lines.join('\n'))?.requests).toEqual([])
      }),
    )
  })

  it.each([
    ['a.request', 'a'],
    ['A-1_b.request', 'A-1_b'],
    ['.tmp-1.request', undefined],
    ['../x.request', undefined],
    ['-a.request', undefined],
    ['a.answer', undefined],
    [`${'a'.repeat(65)}.request`, undefined],
  ])('of the file %s is to the request %s', (file, id) => expect(brokerRequestId(file)).toBe(id))
})
