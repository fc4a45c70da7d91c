import type { IncomingMessage } from 'node:http'
import { ConductorError } from '../../errors.js'
import type { EnvironmentCredentials } from '../../protocol/environment.js'
import type { Grant, GrantBroker } from '../../protocol/grant.js'
import { s3ObjectKey } from '../../protocol/s3-layout.js'
import type { Settings } from '../settings.js'
import { parseAddress } from './address.js'
import { type Answer, exchange, readAnswer } from './exchange.js'
import type { BucketPlace } from './s3-address.js'

/** Reads one object, by whatever means there are. */
export interface S3Reader {
  /** Headers of the object, or why they are not to be had; `undefined` when it is not there. */
  look(): Promise<Answer | undefined>
  /** Hands the object to `receive` as it arrives, or gives the refusal. */
  download<T>(receive: (response: IncomingMessage) => Promise<T>): Promise<T | Answer>
}

/** A reader of a result's object, by the environment's credentials or else by the grant; `undefined` without either. */
export async function s3Reader(
  settings: Settings,
  key: string,
  taskId: string,
  grant: () => Grant | undefined,
): Promise<S3Reader | undefined> {
  const { s3: own } = settings.env
  if (own?.credentials !== undefined) {
    return await readerWithKeys(settings, own, own.credentials, s3ObjectKey(own.prefix, key), false)
  }
  const { s3 } = grant() ?? {}
  if (s3?.session !== undefined) {
    const { access_key_id, secret_access_key, session_token } = s3.session
    const credentials = {
      accessKeyId: access_key_id,
      secretAccessKey: secret_access_key,
      sessionToken: session_token,
    }
    const place = { bucket: s3.bucket, region: s3.region, endpoint: s3.endpoint }
    return await readerWithKeys(settings, place, credentials, s3ObjectKey(s3.prefix, key), true)
  }
  return s3?.broker === undefined ? undefined : await readerByBroker(settings, key, taskId, s3.broker)
}

async function readerWithKeys(
  settings: Settings,
  { bucket, region, endpoint }: BucketPlace,
  credentials: EnvironmentCredentials,
  objectKey: string,
  granted: boolean,
): Promise<S3Reader> {
  const { S3Client } = await import('./s3-client.js')
  const client = new S3Client({ bucket, region, endpoint }, credentials, settings.limits)
  return {
    look: async () => {
      const head = await client.call({ method: 'HEAD', objectKey })
      // A session may not list, and who may not list is told 403 of what does not exist.
      return head.status === 404 || (head.status === 403 && granted) ? undefined : head
    },
    download: (receive) => client.download({ method: 'GET', objectKey }, receive),
  }
}

async function readerByBroker(
  settings: Settings,
  key: string,
  taskId: string,
  broker: GrantBroker,
): Promise<S3Reader> {
  const { limits, localDir } = settings
  const { BrokerClient } = await import('./broker-client.js')
  const client = new BrokerClient(broker, localDir, taskId, limits)
  const { requests } = await client.ask({ op: 'get', key }, undefined)
  const [signed] = requests
  if (signed?.method !== 'GET') throw new ConductorError('PROTOCOL', 'the broker signed nothing')
  const { method, headers } = signed
  const address = parseAddress('signed URL', signed.url)
  const send = <T>(read: (response: IncomingMessage) => Promise<T>): Promise<T> =>
    exchange({ method, address, headers, limits }, read)
  return {
    look: async () => {
      const answer = await send(async (response) => {
        if (response.statusCode !== 200) return await readAnswer(response)
        // Only reading was signed for, so the body is left where it is.
        response.destroy()
        return { status: 200, headers: response.headers, text: '' }
      })
      return answer.status === 404 ? undefined : answer
    },
    download: <T>(receive: (response: IncomingMessage) => Promise<T>) =>
      send<T | Answer>((response) =>
        response.statusCode === 200 ? receive(response) : readAnswer(response),
      ),
  }
}
