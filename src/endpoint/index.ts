export { DirectoryBackend, type DirectoryBackendOptions } from './backends/directory-backend.js'
export type {
  BodyRange,
  Commit,
  EndpointBackend,
  PageOptions,
  RecordPage,
  Relay,
  TaskUsage,
} from './backends/endpoint-backend.js'
export { S3Backend, type S3BackendOptions } from './backends/s3-backend.js'
export { type StagedBody, StagingFolder } from './backends/staging-folder.js'
export { createResultsHandler, type ResultsHandler } from './handler.js'
export {
  type NodeListener,
  type NodeListenerOptions,
  toNodeListener,
  type WebHandler,
} from './node/node-listener.js'
export { type ResultsServer, type ServeResultsOptions, serveResults } from './node/serve-results.js'
export type { Authenticate, EndpointLimits, Principal, ResultsHandlerOptions } from './options.js'
export {
  type MintTokenOptions,
  mintToken,
  type TokenClaims,
  type TokenScope,
  type TokenVerdict,
  verifyToken,
} from './token.js'
