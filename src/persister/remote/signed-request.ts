import { ConductorError } from '../../errors.js'
import type { SignedRequest } from '../../protocol/broker.js'
import { parseAddress } from './address.js'
import { type Answer, exchange, readAnswer } from './exchange.js'
import type { Limits } from './limits.js'
import type { DeliveryContext } from './remote-store.js'
import type { BodyPart } from './request-body.js'
import { s3Error } from './s3-error.js'

/** Sends a request as it was signed. */
export async function sendSigned(
  { method, url, headers }: SignedRequest,
  body: readonly BodyPart[],
  limits: Limits,
  { signal, onSent }: DeliveryContext,
): Promise<Answer> {
  const address = parseAddress('signed URL', url)
  return await exchange(
    { method, address, headers, body, limits, askFirst: true, signal, onSent },
    readAnswer,
  )
}

/** What a refusal of a signed request means: a taken name is looked at again, and so is one whose time may be up. */
export function signedError(answer: Answer, doing: string): ConductorError {
  const error = s3Error(answer, doing)
  const askAgain =
    error.code === 'EXISTS' ||
    error.code === 'EXPIRED' ||
    (error.code === 'ACCESS_DENIED' && /RequestTimeTooSkewed/.test(error.message))
  return askAgain
    ? new ConductorError('UNAVAILABLE', error.message, { retryable: true, cause: error })
    : error
}
