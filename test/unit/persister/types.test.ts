import { describe, expectTypeOf, it } from 'vitest'
import type * as own from '../../../src/persister/api.js'
import type * as shipped from '../../../src/persister/persist-result.js'
import type { ResultRecord } from '../../../src/protocol/record.js'

describe('the shipped declarations', () => {
  it('say what the module is', () => {
    expectTypeOf<typeof shipped.persistResult>().toEqualTypeOf<typeof own.persistResult>()
    expectTypeOf<typeof shipped.listResults>().toEqualTypeOf<typeof own.listResults>()
    expectTypeOf<typeof shipped.retrieveResult>().toEqualTypeOf<typeof own.retrieveResult>()
    expectTypeOf<typeof shipped.flush>().toEqualTypeOf<typeof own.flush>()
    expectTypeOf<shipped.PersistOptions>().toEqualTypeOf<own.PersistOptions>()
    expectTypeOf<shipped.FlushOptions>().toEqualTypeOf<own.FlushOptions>()
    expectTypeOf<shipped.ResultRecord>().toEqualTypeOf<ResultRecord>()
  })
})
