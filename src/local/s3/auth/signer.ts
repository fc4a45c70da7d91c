import { createHash, createHmac, type Hash, type Hmac, timingSafeEqual } from 'node:crypto'
import { getCanonicalHeaders, SignatureV4 } from '@smithy/signature-v4'
import { S3Error } from '../errors.js'
import type { S3Request } from '../request.js'
import type { LocalS3Credential } from './credentials.js'

type Secret = ConstructorParameters<NonNullable<ConstructorParameters<typeof SignatureV4>[0]['sha256']>>[0]

/** SHA-256 and HMAC-SHA-256 of node:crypto in the shape AWS's signer takes. */
class Sha256 {
  #hash: Hash | Hmac
  readonly #secret: Uint8Array | string | undefined

  constructor(secret?: Secret) {
    this.#secret =
      secret === undefined || typeof secret === 'string'
        ? secret
        : ArrayBuffer.isView(secret)
          ? new Uint8Array(secret.buffer, secret.byteOffset, secret.byteLength)
          : new Uint8Array(secret)
    this.#hash = this.#create()
  }

  update(data: Uint8Array): void {
    this.#hash.update(data)
  }

  async digest(): Promise<Uint8Array> {
    return this.#hash.digest()
  }

  reset(): void {
    this.#hash = this.#create()
  }

  #create(): Hash | Hmac {
    return this.#secret === undefined ? createHash('sha256') : createHmac('sha256', this.#secret)
  }
}

/** Date, region and service a signature is for. */
export interface Scope {
  readonly date: string
  readonly region: string
  readonly service: string
}

/** A credential scope as it is written: `20130524/us-east-1/s3/aws4_request`. */
export function scopeText(scope: Scope): string {
  return `${scope.date}/${scope.region}/${scope.service}/aws4_request`
}

/** Computes what AWS's own signer would have signed, with the key of one credential. */
export class Signer extends SignatureV4 {
  readonly #scope: Scope
  readonly #time: Date

  constructor(credential: LocalS3Credential, scope: Scope, timeMs: number) {
    super({
      credentials: { accessKeyId: credential.accessKeyId, secretAccessKey: credential.secretAccessKey },
      region: scope.region,
      service: scope.service,
      sha256: Sha256,
      uriEscapePath: false,
    })
    this.#scope = scope
    this.#time = new Date(timeMs)
  }

  /** Signs a string of the caller's making: a policy, a chunk, a trailer. */
  signText(text: string): Promise<string> {
    return this.sign(text, { signingDate: this.#time })
  }

  /** Throws `SignatureDoesNotMatch`, with what was signed here, unless the request carries this signature. */
  async verifyRequest(
    request: S3Request,
    signedHeaders: readonly string[],
    payloadHash: string,
    given: string,
    accessKeyId: string,
  ): Promise<void> {
    const headers: Record<string, string> = {}
    for (const name of signedHeaders) headers[name] = request.headers[name] ?? ''
    const canonicalRequest = this.createCanonicalRequest(
      {
        method: request.method,
        path: request.canonicalPath,
        query: { ...request.query.bag },
        headers,
        protocol: 'http:',
        hostname: '',
      },
      getCanonicalHeaders(
        { method: '', path: '', protocol: 'http:', hostname: '', headers },
        undefined,
        new Set(signedHeaders),
      ),
      payloadHash,
    )
    const stringToSign = await this.createStringToSign(
      this.formatDate(this.#time).longDate,
      scopeText(this.#scope),
      canonicalRequest,
      'AWS4-HMAC-SHA256',
    )
    if (!sameSignature(await this.signText(stringToSign), given)) {
      throw new S3Error('SignatureDoesNotMatch', {
        details: {
          AWSAccessKeyId: accessKeyId,
          StringToSign: stringToSign,
          SignatureProvided: given,
          CanonicalRequest: canonicalRequest,
        },
      })
    }
  }
}

/** Compares in constant time. */
export function sameSignature(expected: string, given: string): boolean {
  const a = Buffer.from(expected)
  const b = Buffer.from(given)
  return a.length === b.length && timingSafeEqual(a, b)
}
