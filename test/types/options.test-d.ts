import { expectTypeOf, test } from 'vitest'
import type { z } from 'zod'
import type { ConductorOptions, conductorOptionsSchema } from '../../src/conductor/options.js'
import type {
  TaskResultsOptions,
  taskResultsOptionsSchema,
} from '../../src/conductor/reading/results-options.js'
import type { SpawnOptions, spawnOptionsSchema } from '../../src/conductor/spawn/spawn-options.js'
import type { DownloadOptions, downloadOptionsSchema } from '../../src/results/download.js'
import type { ResultFilter, resultFilterSchema } from '../../src/results/filter.js'
import type { ResultsQuery, resultsQuerySchema } from '../../src/results/many-tasks.js'
import type { PruneOptions, pruneOptionsSchema } from '../../src/results/prune.js'
import type { TasksOptions, tasksOptionsSchema } from '../../src/results/tasks.js'

/** Schemas infer mutable properties; interfaces promise not to write. Nothing else may differ. */
type Frozen<T> = T extends Uint8Array | Date | AbortSignal | ((...args: never[]) => unknown)
  ? T
  : T extends object
    ? { readonly [K in keyof T]: Frozen<T[K]> }
    : T

test('every schema says what its hand-written interface says', () => {
  expectTypeOf<Frozen<z.input<typeof spawnOptionsSchema>>>().toEqualTypeOf<Frozen<SpawnOptions>>()
  expectTypeOf<keyof z.input<typeof conductorOptionsSchema>>().toEqualTypeOf<keyof ConductorOptions>()
  expectTypeOf<z.input<typeof conductorOptionsSchema>>().toExtend<ConductorOptions>()
  expectTypeOf<Frozen<z.input<typeof resultFilterSchema>>>().toEqualTypeOf<Frozen<ResultFilter>>()
  expectTypeOf<Frozen<z.input<typeof resultsQuerySchema>>>().toEqualTypeOf<Frozen<ResultsQuery>>()
  expectTypeOf<Frozen<z.input<typeof downloadOptionsSchema>>>().toEqualTypeOf<Frozen<DownloadOptions>>()
  expectTypeOf<Frozen<z.input<typeof pruneOptionsSchema>>>().toEqualTypeOf<Frozen<PruneOptions>>()
  expectTypeOf<Frozen<z.input<typeof tasksOptionsSchema>>>().toEqualTypeOf<Frozen<TasksOptions>>()
  expectTypeOf<Frozen<z.input<typeof taskResultsOptionsSchema>>>().toEqualTypeOf<Frozen<TaskResultsOptions>>()
})
