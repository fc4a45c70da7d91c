import { FoundSandboxStore } from '../../sandbox/found-sandbox-store.js'
import type { SandboxProvider } from '../../sandbox/remote-sandbox.js'
import type { SandboxVisits } from '../../sandbox/sandbox-visits.js'
import type { ResultStore } from '../../stores/result-store.js'
import type { ResolvedOptions } from '../options.js'
import type { TaskPlaces } from '../places.js'
import { METADATA } from '../sandbox-metadata.js'
import type { TaskResultsOptions } from './results-options.js'

/** The task's sandboxes as one more place, unless they are not to be looked into or their spool is a volume anyway. */
export function foundSandboxes(
  taskId: string,
  places: TaskPlaces,
  from: {
    readonly options: ResolvedOptions
    readonly provider: SandboxProvider
    readonly visits: SandboxVisits
  },
  { sandboxes, afterReading = 'pause' }: TaskResultsOptions,
): ResultStore[] {
  const { options, provider, visits } = from
  const reading = sandboxes ?? (options.e2b.apiKey ? 'running' : 'none')
  if (reading === 'none' || places.volume !== undefined) return []
  const metadata = { [METADATA.conductor]: options.id, [METADATA.task]: taskId }
  return [
    new FoundSandboxStore({
      taskId,
      localDir: places.localDir,
      find: (call) => provider.list(metadata, call),
      visits,
      resumes: reading === 'paused',
      after: afterReading,
      others: places.stores,
    }),
  ]
}
