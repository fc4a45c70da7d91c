import { z } from 'zod'
import { checkOptions } from '../check-options.js'
import { ConductorError } from '../errors.js'
import type { Egress } from '../grants/egress.js'
import type { BrokerOptions, GrantAccess } from '../grants/granter.js'
import { MAX_SINGLE_PUT_BYTES } from '../grants/mint-grant.js'
import type { SessionOptions } from '../grants/session/mint-session.js'
import { ENV, readEnvironment } from '../protocol/environment.js'
import { nameProblem } from '../protocol/key.js'
import type { E2bOptions } from '../sandbox/e2b-sandboxes.js'
import type { S3Options } from '../stores/s3/s3-location.js'
import {
  type EncryptionOptions,
  encryptionSchema,
  type ResolvedEncryption,
  resolveEncryption,
} from './encryption-options.js'

/**
 * How a worker may write to S3. `policy`: by itself, with an upload policy for its own prefix. `broker`: one request at a time,
 * each signed by the conductor. `session`: with temporary credentials for its own prefix. `presigned`: `policy` where the
 * store has it, else `broker`. `env`: with the conductor's own AWS credentials.
 */
export type Access = GrantAccess | 'env'

/** An HTTP results endpoint, this project's own or any server that takes the same POST. */
export interface HttpOptions {
  readonly endpoint: string
  /** A bearer token, handed to every worker as it is. */
  readonly token?: string | undefined
  /** Secret of an endpoint of this project's: each worker then gets a token for its own task, which expires with its grant. At least 32 bytes. */
  readonly tokenSecret?: string | undefined
}

/** Settings of a {@link Conductor}; what is left out comes from the environment, under the names the README lists. */
export interface ConductorOptions {
  /** Marks this conductor's sandboxes, so that it finds them again. @default 'stu' */
  readonly id?: string | undefined
  /** How to reach E2B. */
  readonly e2b?: E2bOptions | undefined
  /** E2B template of workers. @default `E2B_TEMPLATE_ID`, else E2B's own default */
  readonly template?: string | undefined
  /** The S3 tier; null switches it off whatever the environment says. */
  readonly s3?: S3Options | null | undefined
  /** The HTTP tier; null switches it off whatever the environment says. */
  readonly http?: HttpOptions | null | undefined
  /** E2B volume that is mounted as every worker's spool, made when there is none; `{taskId}` in the name stands for the task's id. */
  readonly volume?: string | undefined
  /** Where the spool lies in a sandbox. @default '/workspace/.results' */
  readonly localDir?: string | undefined
  /** @default 'presigned' */
  readonly access?: Access | undefined
  /** The role behind `access: 'session'`. */
  readonly session?: SessionOptions | undefined
  /** Quotas of `access: 'broker'`, and how workers reach it. */
  readonly broker?: BrokerOptions | undefined
  /** Has workers encrypt what they store, so that only who has the private key can read it; null switches it off whatever the environment says. */
  readonly encryption?: EncryptionOptions | null | undefined
  /** Confines sandboxes to where their results go, and to hosts that are listed. @default everything is allowed */
  readonly egress?: Egress | undefined
  /** Workers at once; further ones wait. @default 50 */
  readonly maxWorkers?: number | undefined
  /** Largest single result a grant admits, in bytes; above 5 GiB a worker needs its conductor to store it. @default 5 GiB, the most S3 takes in one request */
  readonly maxResultBytes?: number | undefined
  /** Variables to read settings from. @default process.env */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined
}

/** Settings with the environment and defaults applied. */
export interface ResolvedOptions {
  readonly id: string
  readonly e2b: E2bOptions
  readonly template: string | undefined
  readonly s3: S3Options | undefined
  readonly http: HttpOptions | undefined
  readonly volume: string | undefined
  readonly localDir: string
  readonly access: Access
  readonly session: SessionOptions | undefined
  readonly broker: BrokerOptions | undefined
  readonly egress: Egress | undefined
  readonly encryption: ResolvedEncryption | undefined
  readonly maxWorkers: number
  readonly maxResultBytes: number
}

/** https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html */
const MAX_OBJECT_BYTES = 48.8 * 1024 ** 4

/** @internal */
export const accessSchema = z.enum(['presigned', 'policy', 'broker', 'session', 'env'])

const httpUrl = z.url({ protocol: /^https?$/, error: 'must be an http or https URL' })
/** @internal */
export const absolutePath = z
  .string()
  .regex(/^\/[^\0]*[^/\0]$/, 'must be an absolute path without a slash at its end')

const s3Schema = z.strictObject({
  // https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
  bucket: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]$/, 'must be a bucket name'),
  prefix: z
    .string()
    .refine(
      (prefix) =>
        prefix
          .split('/')
          .every((part, i, all) =>
            part === '' ? i === 0 || i === all.length - 1 : nameProblem(part) === undefined,
          ),
      'must be path segments',
    )
    .optional(),
  region: z.string().min(1).optional(),
  endpoint: httpUrl.optional(),
  credentials: z
    .custom<S3Options['credentials']>((value) => ['object', 'function'].includes(typeof value))
    .optional(),
  client: z.custom<S3Options['client']>((value) => typeof value === 'object').optional(),
  sse: z.enum(['AES256', 'aws:kms', 'bucket']).optional(),
  kmsKeyId: z.string().min(1).optional(),
  // https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html
  tags: z
    .record(z.string().min(1).max(128), z.string().max(256))
    .refine((tags) => Object.keys(tags).length <= 10, 'must be at most 10 tags')
    .optional(),
})

/** @internal */
export const conductorOptionsSchema = z.strictObject({
  id: z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, 'must be up to 64 letters, digits, ".", "_", "-"')
    .optional(),
  e2b: z
    .strictObject({
      apiKey: z.string().min(1).optional(),
      domain: z.string().min(1).optional(),
      apiUrl: httpUrl.optional(),
      sandboxUrl: httpUrl.optional(),
      volumeApiUrl: httpUrl.optional(),
    })
    .optional(),
  template: z.string().min(1).optional(),
  s3: s3Schema.nullable().optional(),
  http: z
    .strictObject({
      endpoint: httpUrl,
      token: z.string().min(1).optional(),
      tokenSecret: z.string().min(32).optional(),
    })
    .nullable()
    .optional(),
  volume: z.string().min(1).optional(),
  localDir: absolutePath.optional(),
  access: accessSchema.optional(),
  encryption: encryptionSchema.nullable().optional(),
  egress: z.union([z.literal('tiers'), z.array(z.string().min(1).max(253)).max(200)]).optional(),
  session: z
    .strictObject({
      roleArn: z.string().min(20).max(2048),
      endpoint: httpUrl.optional(),
      externalId: z.string().min(2).max(1224).optional(),
      maxSeconds: z.number().int().min(900).max(43_200).optional(),
    })
    .optional(),
  broker: z
    .strictObject({
      maxResults: z.number().int().min(1).optional(),
      maxTaskBytes: z.number().int().min(1).optional(),
      maxPutBytes: z.number().int().min(1).max(MAX_SINGLE_PUT_BYTES).optional(),
      url: httpUrl.optional(),
      tokenSecret: z.string().min(32).optional(),
    })
    .refine(({ url, tokenSecret }) => url === undefined || tokenSecret !== undefined, {
      message: 'url needs tokenSecret',
    })
    .optional(),
  maxWorkers: z.number().int().min(1).max(10_000).optional(),
  maxResultBytes: z.number().int().min(1).max(MAX_OBJECT_BYTES).optional(),
  env: z.record(z.string(), z.string().optional()).optional(),
})

/** Checks the options and fills in what the environment says; throws `INVALID_OPTION` naming the option. */
export function resolveOptions(options: ConductorOptions): ResolvedOptions {
  checkOptions('Conductor', conductorOptionsSchema, options)
  const env = options.env ?? process.env
  assertUrls(env)
  const read = readEnvironment(env)
  return {
    id: options.id ?? 'stu',
    e2b: {
      apiKey: env.E2B_API_KEY,
      apiUrl: env.E2B_API_URL,
      sandboxUrl: env.E2B_SANDBOX_URL,
      volumeApiUrl: env.E2B_VOLUME_API_URL,
      domain: env.E2B_DOMAIN,
      ...options.e2b,
    },
    template: options.template ?? (env.E2B_TEMPLATE_ID || undefined),
    s3: options.s3 === null ? undefined : (options.s3 ?? read.s3),
    http: options.http === null ? undefined : (options.http ?? read.http),
    volume: options.volume,
    localDir: options.localDir ?? read.localDir,
    access: options.access ?? 'presigned',
    session: options.session,
    broker: options.broker,
    egress: options.egress,
    encryption: resolveEncryption(options.encryption, read),
    maxWorkers: options.maxWorkers ?? 50,
    maxResultBytes: options.maxResultBytes ?? MAX_SINGLE_PUT_BYTES,
  }
}

/** Variables that take an URL. */
const URL_VARIABLES = [
  'E2B_API_URL',
  'E2B_SANDBOX_URL',
  'E2B_VOLUME_API_URL',
  ENV.awsEndpointUrlS3,
  ENV.awsEndpointUrl,
  ENV.httpEndpoint,
] as const

function assertUrls(env: Readonly<Record<string, string | undefined>>): void {
  for (const name of URL_VARIABLES) {
    if (env[name] && !httpUrl.safeParse(env[name]).success) {
      throw new ConductorError('INVALID_OPTION', `${name} must be an http or https URL`)
    }
  }
}

/** Whether it names a way of access. */
export function isAccess(name: string | undefined): name is Access {
  return accessSchema.safeParse(name).success
}

/** Fails early where no sandbox can be asked for. */
export function assertApiKey({ e2b }: Pick<ResolvedOptions, 'e2b'>): void {
  // The SDK looks there itself where nothing is said.
  if (e2b.apiKey || process.env.E2B_API_KEY) return
  throw new ConductorError(
    'ACCESS_DENIED',
    'there is no E2B API key: set E2B_API_KEY, or e2b.apiKey; without an account, `stu-conductor local` starts a stand-in and prints its settings',
  )
}

/** Fails early with what is missing for a tier that was asked for. */
export function assertAccessPossible(options: ResolvedOptions, access: Access): void {
  if (access === 'session' && options.session === undefined) {
    throw new ConductorError('INVALID_OPTION', "access: 'session' needs session.roleArn")
  }
  if (access !== 'env' && access !== 'presigned' && options.s3 === undefined) {
    throw new ConductorError('INVALID_OPTION', `access: '${access}' needs an S3 bucket (${ENV.s3Bucket})`)
  }
  if (access === 'env' && options.s3 === undefined && options.http === undefined) {
    throw new ConductorError(
      'INVALID_OPTION',
      `access: 'env' needs an S3 bucket (${ENV.s3Bucket}) or an endpoint (${ENV.httpEndpoint})`,
    )
  }
}
