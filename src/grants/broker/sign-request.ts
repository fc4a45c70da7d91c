import type {
  GetObjectCommand,
  PutObjectCommand,
  PutObjectCommandInput,
  PutObjectCommandOutput,
  S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3'
import { ConductorError } from '../../errors.js'
import type { SignedRequest } from '../../protocol/broker.js'
import { mapS3Error } from '../../stores/s3/map-s3-error.js'

/** S3 takes a signed request for 15 minutes around its date; asking anew comes a little earlier. */
export const SIGNED_FOR_MS = 14 * 60_000
const EMPTY_SHA256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'

type Signable = PutObjectCommand | UploadPartCommand | GetObjectCommand

/** A step of the SDK's own on the way to the network. */
type Step = (args: {
  input: PutObjectCommandInput
  request: unknown
}) => Promise<{ response: unknown; output: PutObjectCommandOutput }>

/** The request as the SDK's own middleware passes it on. */
interface RequestParts {
  method: string
  protocol: string
  hostname: string
  port?: number
  path: string
  query?: Record<string, string | string[] | null>
  headers: Record<string, string>
}

/**
 * Signs a request that somebody else will send. Unlike a presigned URL it is signed in its `Authorization` header: there every
 * store holds the body against the SHA-256 in the signature, and no header can be left out, changed or moved to the query.
 *
 * @param sha256 hex digest of the body that will be sent; of nothing by default
 */
export async function signRequest(
  client: S3Client,
  command: Signable,
  sha256: string = EMPTY_SHA256,
): Promise<SignedRequest> {
  let signed: RequestParts | undefined
  // What a command asks for makes no difference to what is done with it here.
  const stack = command.middlewareStack as PutObjectCommand['middlewareStack']
  stack.addRelativeTo(
    (next: Step): Step =>
      (args) => {
        const { headers } = args.request as RequestParts
        // They speak of one attempt by this process, and would be signed.
        for (const name of Object.keys(headers)) {
          if (/^(amz-sdk-|x-amz-user-agent$|user-agent$)/i.test(name)) delete headers[name]
        }
        headers['x-amz-content-sha256'] = sha256
        return next(args)
      },
    { name: 'forOthers', relation: 'before', toMiddleware: 'awsAuthMiddleware' },
  )
  stack.add(
    () => async (args) => {
      signed = args.request as RequestParts
      return { response: {}, output: { $metadata: {} } }
    },
    { name: 'keepInstead', step: 'finalizeRequest', priority: 'low' },
  )
  try {
    await client.send(command as PutObjectCommand)
  } catch (error) {
    throw mapS3Error(error, 'sign a request')
  }
  if (signed === undefined) throw new ConductorError('PROTOCOL', 'the AWS SDK signed nothing')
  return { method: signed.method, url: urlOf(signed), headers: sendable(signed.headers) }
}

/** What was signed, and the signature; nothing else has to be sent. */
function sendable(headers: Record<string, string>): Record<string, string> {
  const authorization = headers.authorization ?? ''
  const names = new Set(/SignedHeaders=([^,]+)/.exec(authorization)?.[1]?.split(';'))
  names.delete('host')
  const kept = Object.entries(headers)
    .map(([name, value]) => [name.toLowerCase(), value] as const)
    .filter(([name]) => names.has(name))
  return { ...Object.fromEntries(kept), authorization }
}

function urlOf({ protocol, hostname, port, path, query = {} }: RequestParts): string {
  const pairs = Object.entries(query).flatMap(([name, value]) =>
    [value].flat().map((one) => `${encode(name)}${one === null ? '' : `=${encode(one)}`}`),
  )
  const host = port === undefined ? hostname : `${hostname}:${port}`
  return `${protocol}//${host}${path}${pairs.length === 0 ? '' : `?${pairs.join('&')}`}`
}

function encode(text: string | undefined): string {
  return encodeURIComponent(text ?? '').replace(
    /[!'()*]/g,
    (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`,
  )
}
