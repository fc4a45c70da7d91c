import type { CallOptions } from '../call-options.js'
import { mintToken } from '../endpoint/token.js'
import { ConductorError } from '../errors.js'
import type { Grant, GrantBroker, GrantHttp } from '../protocol/grant.js'
import type { S3Location } from '../stores/s3/s3-location.js'
import { createBrokerHandler } from './broker/broker-handler.js'
import { takesPolicies } from './broker/store-abilities.js'
import { type GrantEvent, TaskBroker } from './broker/task-broker.js'
import { abortTaskUploads } from './broker/uploads.js'
import { MAX_SINGLE_PUT_BYTES, mintGrant } from './mint-grant.js'
import type { SessionOptions } from './session/mint-session.js'

/** How a worker may write to S3 without credentials of the conductor's. */
export type GrantAccess = 'presigned' | 'policy' | 'broker' | 'session'

/** How workers ask the conductor for signed requests, and how much they may have. */
export interface BrokerOptions {
  /** Results of one task. @default no limit */
  readonly maxResults?: number | undefined
  /** Of all results of one task together, in bytes. @default no limit */
  readonly maxTaskBytes?: number | undefined
  /** Largest body of one request, in bytes; a bigger one goes in parts, as proxies before a store may want. @default 5 GiB */
  readonly maxPutBytes?: number | undefined
  /** Where `conductor.handler` is reachable from a sandbox; without it requests and answers are files in the sandbox. */
  readonly url?: string | undefined
  /** Signs the tokens that workers send to `url`; at least 32 bytes. */
  readonly tokenSecret?: string | undefined
}

/** What grants are made from. */
export interface GranterOptions {
  readonly s3: S3Location | undefined
  readonly maxResultBytes: number
  readonly session?: SessionOptions | undefined
  readonly broker?: BrokerOptions | undefined
}

/** Whose grant, until when, by which means. */
export interface IssueOptions extends CallOptions {
  readonly taskId: string
  readonly expiresAt: Date
  readonly access: GrantAccess
  readonly http?: GrantHttp | undefined
}

/** A conductor's side of all grants: makes them, and answers those who have one. */
export class Granter {
  readonly #options: GranterOptions
  readonly #brokers = new Map<string, TaskBroker>()
  readonly #ended = new Set<string>()

  constructor(options: GranterOptions) {
    this.#options = options
  }

  /** Makes a grant. Only a session, and the first `presigned` one for a bucket, ask anybody. */
  async issue({ taskId, expiresAt, access, http, signal }: IssueOptions): Promise<Grant> {
    const { s3, session, maxResultBytes } = this.#options
    const common = { taskId, expiresAt, http, maxResultBytes, signal }
    if (s3 === undefined) return await mintGrant(common)
    switch (access) {
      case 'policy':
        return await mintGrant({ ...common, s3 })
      case 'broker':
        return await mintGrant({ ...common, s3, policy: false, broker: this.#brokerPart(taskId, expiresAt) })
      case 'session':
        if (session === undefined) {
          throw new ConductorError('INVALID_OPTION', "access: 'session' needs session.roleArn")
        }
        return await mintGrant({ ...common, s3, policy: false, session })
      case 'presigned': {
        const postPolicy = await takesPolicies(s3)
        const needsBroker = !postPolicy || maxResultBytes > MAX_SINGLE_PUT_BYTES
        const broker = needsBroker ? this.#brokerPart(taskId, expiresAt) : undefined
        return await mintGrant({ ...common, s3, policy: postPolicy, broker })
      }
    }
  }

  /** The broker of a task, the same one each time; throws `INVALID_OPTION` without an S3 tier. */
  brokerOf(taskId: string, onGrant?: (event: GrantEvent) => void): TaskBroker {
    const there = this.#brokers.get(taskId)
    if (there !== undefined) return there
    const { s3, maxResultBytes, broker: { maxResults, maxTaskBytes } = {} } = this.#options
    if (s3 === undefined) throw new ConductorError('INVALID_OPTION', 'a broker needs an S3 tier')
    const broker = new TaskBroker({
      taskId,
      at: s3,
      limits: { maxResultBytes, maxResults, maxTaskBytes },
      onGrant,
    })
    this.#brokers.set(taskId, broker)
    return broker
  }

  /**
   * Refuses what a task asks from now on, and frees its unfinished uploads.
   *
   * @param unseen whether it may have begun some that no broker here knows of, which costs a request
   */
  async end(taskId: string, { unseen = false }: { readonly unseen?: boolean } = {}): Promise<void> {
    const { s3, broker: { url } = {} } = this.#options
    const broker = this.#brokers.get(taskId)
    this.#brokers.delete(taskId)
    if (url !== undefined) this.#ended.add(taskId)
    if (!unseen || s3 === undefined) return await broker?.end()
    broker?.close()
    await abortTaskUploads(s3, taskId)
  }

  /** Answers a task no longer, whose worker goes on: somebody else will, and finds its uploads as they are. */
  leave(taskId: string): void {
    this.#brokers.get(taskId)?.close()
    this.#brokers.delete(taskId)
  }

  /**
   * Answers the requests of workers over HTTPS; a token is all that it knows of a task, so that any process with the same
   * options can answer. Throws `INVALID_OPTION` unless `broker.tokenSecret` is set.
   */
  handler(): (request: Request) => Promise<Response> {
    const secret = this.#options.broker?.tokenSecret
    if (secret === undefined) {
      throw new ConductorError('INVALID_OPTION', 'conductor.handler needs broker.tokenSecret')
    }
    return createBrokerHandler({
      tokenSecrets: [secret],
      brokerOf: (taskId) => (this.#ended.has(taskId) ? undefined : this.brokerOf(taskId)),
    })
  }

  #brokerPart(taskId: string, expiresAt: Date): GrantBroker {
    const { maxResultBytes, broker: { url, tokenSecret, maxPutBytes } = {} } = this.#options
    // A task that ended may have another sandbox now.
    this.#ended.delete(taskId)
    return {
      v: 1,
      max_bytes: maxResultBytes,
      put_bytes: Math.min(maxResultBytes, maxPutBytes ?? MAX_SINGLE_PUT_BYTES),
      ...(url === undefined || tokenSecret === undefined
        ? {}
        : { url, token: mintToken({ secret: tokenSecret, taskId, scope: ['write', 'read'], expiresAt }) }),
    }
  }
}
