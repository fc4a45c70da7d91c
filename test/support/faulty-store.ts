import type { ManifestStore } from '../../src/stores/manifest-store.js'
import type { ResultStore } from '../../src/stores/result-store.js'

/** What a test's process dies of. No `ConductorError`, so that nothing in the SDK takes it for a tier's failure. */
export class Crash extends Error {}

/** Counts what happens, and is over at one moment: whatever is asked from then on finds the process gone. */
export class CrashPoint {
  #left: number

  /** @param after how many steps still happen */
  constructor(after: number) {
    this.#left = after
  }

  /** Whether the crash has come. */
  get over(): boolean {
    return this.#left < 0
  }

  async step<T>(act: () => Promise<T>): Promise<T> {
    this.#left -= 1
    if (this.#left < 0) throw new Crash()
    return act()
  }
}

/** A store whose deletions are steps, each of one result; of a store that deletes many at once, also of many. */
export function crashingStore(inner: ResultStore, point: CrashPoint): ResultStore {
  const { deleteMany } = inner
  return {
    name: inner.name,
    tier: inner.tier,
    list: (taskId, options) => inner.list(taskId, options),
    describe: (key, options) => inner.describe(key, options),
    open: (key, options) => inner.open(key, options),
    delete: (key, options) => point.step(() => inner.delete(key, options)),
    ...(deleteMany === undefined
      ? {}
      : { deleteMany: (wanted, options) => point.step(() => deleteMany.call(inner, wanted, options)) }),
  }
}

/** Manifests whose every write is a step. */
export function crashingManifests(inner: ManifestStore, point: CrashPoint): ManifestStore {
  return {
    name: inner.name,
    read: (taskId, options) => inner.read(taskId, options),
    summarize: (taskId, options) => inner.summarize(taskId, options),
    update: (taskId, change, options) => point.step(() => inner.update(taskId, change, options)),
    delete: (taskId, isMeant, options) => point.step(() => inner.delete(taskId, isMeant, options)),
  }
}
