import { createHmac, timingSafeEqual } from 'node:crypto'
import { z } from 'zod'
import { checkOptions } from '../check-options.js'
import { assertTaskId, EVERY_TASK, taskIdProblem } from '../protocol/key.js'

/** What a token allows for its task, or for every task: to post results, to list and read them, to delete them. */
export type TokenScope = 'write' | 'read' | 'delete'

/** Every scope there is. */
export const TOKEN_SCOPES = ['write', 'read', 'delete'] as const satisfies readonly TokenScope[]

/** Shortest secret that tokens are signed with, in bytes of UTF-8: as long as the signature. */
const MIN_SECRET_BYTES = 32

/** What a token is to allow. */
export interface MintTokenOptions {
  /** Signs the token; whoever has it can mint any other. At least 32 bytes. */
  readonly secret: string
  /** `'*'` makes a token for every task, which also lists them: for conductors, never for a worker. */
  readonly taskId: string
  readonly scope: readonly TokenScope[]
  /** Counts in whole seconds. */
  readonly expiresAt: Date
}

/** What a valid token says. */
export interface TokenClaims {
  /** Undefined for every task. */
  readonly taskId: string | undefined
  readonly scope: readonly TokenScope[]
  readonly expiresAt: Date
}

/** Why a token is refused, or what it says. */
export type TokenVerdict = TokenClaims | 'invalid' | 'expired'

const secretSchema = z
  .string()
  .refine(
    (secret) => Buffer.byteLength(secret) >= MIN_SECRET_BYTES,
    `must have at least ${MIN_SECRET_BYTES} bytes`,
  )

/** @internal */
export const tokenSecretsSchema = z.array(secretSchema).min(1).max(16)

const mintSchema = z.strictObject({
  secret: secretSchema,
  taskId: z.string(),
  scope: z.array(z.enum(TOKEN_SCOPES)).min(1),
  expiresAt: z.date(),
})

const payloadSchema = z.strictObject({
  t: z.string().refine((taskId) => taskId === EVERY_TASK || taskIdProblem(taskId) === undefined),
  s: z.array(z.enum(TOKEN_SCOPES)).min(1),
  e: z.number().int().positive(),
})

// The name at the front keeps a signature made for anything else from passing as a token.
const tokenPattern = /^stu1\.([A-Za-z0-9_-]{1,700})\.([A-Za-z0-9_-]{43})$/

/** Makes a bearer token for one task or for all, valid wherever its secret is accepted, until it expires. */
export function mintToken(options: MintTokenOptions): string {
  const { secret, taskId, scope, expiresAt } = checkOptions('mintToken', mintSchema, options)
  if (taskId !== EVERY_TASK) assertTaskId(taskId)
  const claims = { t: taskId, s: [...new Set(scope)], e: Math.floor(expiresAt.getTime() / 1000) }
  const payload = Buffer.from(JSON.stringify(claims)).toString('base64url')
  return `stu1.${payload}.${sign(secret, payload)}`
}

/** Checks a token against every secret that is accepted, so that secrets can be rotated; tells `expired` only of genuine ones. */
export function verifyToken(token: string, secrets: readonly string[], now: Date): TokenVerdict {
  const match = tokenPattern.exec(token)
  if (match === null) return 'invalid'
  const [, payload = '', signature = ''] = match
  const given = Buffer.from(signature)
  // Every secret is tried, so that the time taken does not tell which one matched.
  let genuine = false
  for (const secret of secrets) {
    if (timingSafeEqual(given, Buffer.from(sign(secret, payload)))) genuine = true
  }
  if (!genuine) return 'invalid'
  const parsed = payloadSchema.safeParse(parseJson(Buffer.from(payload, 'base64url').toString('utf8')))
  if (!parsed.success) return 'invalid'
  const { t, s: scope, e } = parsed.data
  const taskId = t === EVERY_TASK ? undefined : t
  const expiresAt = new Date(e * 1000)
  return expiresAt <= now ? 'expired' : { taskId, scope, expiresAt }
}

function sign(secret: string, payload: string): string {
  return createHmac('sha256', secret).update(`stu-conductor results token 1\n${payload}`).digest('base64url')
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
