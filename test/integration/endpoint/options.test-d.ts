import { expectTypeOf } from 'vitest'
import type { z } from 'zod'
import type { EndpointLimits, ResultsHandlerOptions } from '../../../src/endpoint/index.js'
import type { endpointLimitsSchema, handlerOptionsSchema } from '../../../src/endpoint/options.js'
import type { HttpStoreOptions, httpStoreOptionsSchema } from '../../../src/stores/http/http-store.js'

type Plain<T> = { -readonly [K in keyof T]: T[K] }

expectTypeOf<z.input<typeof endpointLimitsSchema>>().toEqualTypeOf<Plain<EndpointLimits>>()
expectTypeOf<keyof z.input<typeof handlerOptionsSchema>>().toEqualTypeOf<keyof ResultsHandlerOptions>()
expectTypeOf<z.input<typeof handlerOptionsSchema>>().toExtend<ResultsHandlerOptions>()
expectTypeOf<ResultsHandlerOptions>().toExtend<z.input<typeof handlerOptionsSchema>>()
expectTypeOf<z.input<typeof httpStoreOptionsSchema>>().toEqualTypeOf<Plain<HttpStoreOptions>>()
