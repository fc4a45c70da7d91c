import type { Readable } from 'node:stream'
import { GetObjectCommand, type S3Client } from '@aws-sdk/client-s3'
import { ConductorError } from '../../errors.js'
import { mapS3Error } from './map-s3-error.js'
import type { ObjectHead } from './object-head.js'
import type { S3Location } from './s3-location.js'

/** An object that is being read. */
export interface OpenedObject {
  readonly head: ObjectHead
  readonly body: Readable
}

type SdkConfig = S3Client['config']
type SdkRequest = Parameters<SdkConfig['requestHandler']['handle']>[0]
type Signer = Awaited<ReturnType<SdkConfig['signer']>>
type AuthScheme = NonNullable<Parameters<SdkConfig['signer']>[0]>

/** What the SDK makes of a read before it signs it, without what is different for each. */
interface RequestShape {
  readonly request: SdkRequest
  /** What comes before the object's key. */
  readonly pathStart: string
  readonly signer: Signer
  readonly scheme: AuthScheme
}

const META_PREFIX = 'x-amz-meta-'

/**
 * Reads objects of one bucket. The first goes through all of the SDK; of what that made of it, those after it are made, signed by
 * the SDK's signer and sent by its handler, without the middleware that works out the same for each of them, which costs more
 * than to take a megabyte. What is not answered with the object is asked for by the SDK after all, which knows of retries,
 * errors, clocks and redirects.
 */
export class ObjectReader {
  readonly #at: S3Location
  #shape: RequestShape | undefined

  constructor(at: S3Location) {
    this.#at = at
  }

  /** The object from a byte on; rejects before the first byte. */
  async open(
    Key: string,
    { doing, offset, signal }: { doing: string; offset: number; signal: AbortSignal | undefined },
  ): Promise<OpenedObject> {
    signal?.throwIfAborted()
    try {
      const shape = offset === 0 ? this.#shape : undefined
      const opened = shape === undefined ? undefined : await this.#openShaped(Key, shape, signal)
      return opened ?? (await this.#openBySdk(Key, doing, offset, signal))
    } catch (error) {
      throw mapS3Error(error, doing, signal)
    }
  }

  async #openBySdk(
    Key: string,
    doing: string,
    offset: number,
    signal: AbortSignal | undefined,
  ): Promise<OpenedObject> {
    const { client, bucket: Bucket } = this.#at
    const command = new GetObjectCommand({
      Bucket,
      Key,
      Range: offset === 0 ? undefined : `bytes=${offset}-`,
    })
    if (this.#at.ownsClient && offset === 0 && this.#shape === undefined) {
      command.middlewareStack.add(
        (next, context) => async (args) => {
          const [scheme] = (context.endpointV2?.properties?.authSchemes as AuthScheme[] | undefined) ?? []
          this.#shape ??= await shapeOf(client, args.request as SdkRequest, scheme, Key)
          return next(args)
        },
        // The last step before attempts are counted and signed.
        { step: 'build', priority: 'low', name: 'noteShapeMiddleware' },
      )
    }
    const { Body, ...head } = await client.send(command, signal === undefined ? {} : { abortSignal: signal })
    if (Body === undefined) throw new ConductorError('PROTOCOL', `${doing} answered without a body`)
    return { head, body: Body as Readable }
  }

  /** Undefined when it did not work out. */
  async #openShaped(
    Key: string,
    { request, pathStart, signer, scheme }: RequestShape,
    signal: AbortSignal | undefined,
  ): Promise<OpenedObject | undefined> {
    const { config } = this.#at.client
    try {
      const signed = await signer.sign(
        { ...request, headers: { ...request.headers }, path: `${pathStart}${encodeKey(Key)}` },
        {
          signingDate: new Date(Date.now() + config.systemClockOffset),
          ...(scheme.signingRegion === undefined ? {} : { signingRegion: scheme.signingRegion }),
          signingService: scheme.signingName,
        },
      )
      const { response } = await config.requestHandler.handle(
        signed as SdkRequest,
        signal === undefined ? {} : { abortSignal: signal },
      )
      const body = response.body as Readable
      if (response.statusCode === 200) return { head: headOf(response.headers), body }
      body.destroy()
    } catch (error) {
      if (signal?.aborted) throw error
      // Whatever it is, the SDK meets it too if it stays.
    }
    return undefined
  }
}

async function shapeOf(
  { config }: S3Client,
  request: SdkRequest,
  scheme: AuthScheme | undefined,
  Key: string,
): Promise<RequestShape | undefined> {
  const encoded = encodeKey(Key)
  // Directory buckets and multi-region access points have signatures of another kind.
  if (scheme?.name !== 'sigv4' || !request.path.endsWith(`/${encoded}`)) return undefined
  const headers = Object.entries(request.headers).filter(([name]) => !name.startsWith('amz-sdk-'))
  return {
    request: { ...request, headers: Object.fromEntries(headers) } as SdkRequest,
    pathStart: request.path.slice(0, -encoded.length),
    signer: await config.signer(scheme),
    scheme,
  }
}

/** As the SDK does it: everything but what RFC 3986 leaves unreserved. */
function encodeKey(key: string): string {
  const encode = (sign: string): string => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`
  return key
    .split('/')
    .map((part) => encodeURIComponent(part).replace(/[!'()*]/g, encode))
    .join('/')
}

function headOf(headers: Readonly<Record<string, string>>): ObjectHead {
  const metadata = Object.entries(headers).flatMap(([name, value]) =>
    name.startsWith(META_PREFIX) ? [[name.slice(META_PREFIX.length), value] as const] : [],
  )
  const { 'content-length': length, 'content-type': type } = headers
  return {
    ...(length === undefined ? {} : { ContentLength: Number(length) }),
    ...(type === undefined ? {} : { ContentType: type }),
    Metadata: Object.fromEntries(metadata),
  }
}
