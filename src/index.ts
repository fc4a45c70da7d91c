export type { CallOptions } from './call-options.js'
export { type CloseOnSignalsOptions, closeOnSignals } from './conductor/close-on-signals.js'
export type { RunResult } from './conductor/command/supervised-command.js'
export { Conductor } from './conductor/conductor.js'
export type { AttachOptions, CloseOptions } from './conductor/conductor-options.js'
export type { EncryptionOptions } from './conductor/encryption-options.js'
export type { DeliveredResult, Receipt, WorkerExit } from './conductor/end/receipt.js'
export type { UndeclaredOptions } from './conductor/end/undeclared.js'
export type { Access, ConductorOptions, HttpOptions } from './conductor/options.js'
export type { RehomedResult, RehomeOptions, RehomeReport } from './conductor/reading/rehome.js'
export type { SandboxReading, TaskResultsOptions } from './conductor/reading/results-options.js'
export type { RecoverOptions, Recovery } from './conductor/recovery/recover.js'
export type { RetryOptions, SpawnOptions } from './conductor/spawn/spawn-options.js'
export type { Worker } from './conductor/worker/worker.js'
export type { WorkerEvents, WorkerRetry } from './conductor/worker/worker-events.js'
export type { WorkerState } from './conductor/worker/worker-life.js'
export type { OutputOffsets, RunOptions, TerminateOptions } from './conductor/worker/worker-options.js'
export { type EncryptionKeys, encryptionPublicKey, generateEncryptionKeys } from './encryption/keys.js'
export { ConductorError, type ErrorCode, isConductorError } from './errors.js'
export { type CostEstimate, type CostOptions, estimateCost, type StoragePrices } from './estimate-cost.js'
export type { GrantEvent } from './grants/broker/task-broker.js'
export type { BrokerOptions, GrantAccess } from './grants/granter.js'
export type { SessionOptions } from './grants/session/mint-session.js'
export type { DeathCertificate } from './protocol/death-certificate.js'
export type { DeathCause, Outcome } from './protocol/outcome.js'
export type { JsonObject, JsonValue } from './protocol/record.js'
export type { DuplicatedResult } from './results/dedupe.js'
export type { DeletedResult, DeleteReport, FailedDeletion } from './results/delete-results.js'
export type { DownloadOptions } from './results/download.js'
export type { DownloadProgress } from './results/download-progress.js'
export {
  DownloadError,
  type DownloadedFile,
  type DownloadReport,
  type FailedDownload,
} from './results/download-report.js'
export type { Extracted } from './results/extract.js'
export type { ResultFilter } from './results/filter.js'
export {
  type LifecycleConfiguration,
  type LifecycleOptions,
  type LifecycleRule,
  lifecycleRule,
} from './results/lifecycle-rule.js'
export type { ResultsQuery } from './results/many-tasks.js'
export type { JsonSchema, ParsingSchema, StandardSchema } from './results/parse-json.js'
export type { PrunedTask, PruneOptions, PruneProgress, PruneReport } from './results/prune.js'
export type {
  ExtractOptions,
  ReadAllOptions,
  ReadOptions,
  ResultUrlOptions,
  SaveOptions,
} from './results/read-options.js'
export type { Result, TierProblem } from './results/result.js'
export type { ListResultsOptions, ResultList, Results } from './results/results.js'
export type { TaskList, TaskSummary, Tasks, TasksOptions } from './results/tasks.js'
export type { E2bOptions } from './sandbox/e2b-sandboxes.js'
export type { AfterReading } from './sandbox/sandbox-visits.js'
export type { StoreTier, UrlOptions } from './stores/result-store.js'
export type { S3Credentials, S3Options } from './stores/s3/s3-location.js'
