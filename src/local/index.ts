export { type LocalE2b, type LocalE2bOptions, startLocalE2b } from './e2b/index.js'
export {
  type LocalS3,
  type LocalS3Allow,
  type LocalS3Credential,
  type LocalS3Options,
  type S3Action,
  type S3Operation,
  startLocalS3,
} from './s3/index.js'
export { type LocalStack, type LocalStackOptions, startLocalStack } from './stack.js'
