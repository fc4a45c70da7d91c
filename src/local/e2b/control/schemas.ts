import { posix } from 'node:path'
import { z } from 'zod'

const texts = z.record(z.string(), z.string())
const seconds = z.int().nonnegative()

/** Where a volume may be mounted: absolute, below the root, outside what the system has there. */
const mountPath = z
  .string()
  .refine((path) => path.startsWith('/') && !path.includes('\0'), 'a mount path is absolute')
  .transform((path) => posix.normalize(path).replace(/(.)\/$/, '$1'))
  .refine(
    (path) => !/^\/$|^\/(usr|bin|sbin|lib\w*|etc|dev|proc|sys)(\/|$)/.test(path),
    'a volume cannot be mounted over the system',
  )

/** Body of `POST /v2/sandboxes`. */
export const createRequest = z.object({
  templateID: z.string().min(1),
  metadata: texts.default({}),
  envVars: texts.default({}),
  timeout: seconds.default(300),
  autoPause: z.boolean().default(false),
  autoPauseMemory: z.boolean().default(true),
  autoResume: z.object({ enabled: z.boolean() }).optional(),
  allow_internet_access: z.boolean().optional(),
  network: z.record(z.string(), z.unknown()).optional(),
  volumeMounts: z.array(z.object({ name: z.string(), path: mountPath })).default([]),
})

/** Body of `POST /v2/sandboxes/{id}/connect`. */
export const connectRequest = z.object({ timeout: seconds.default(300), memory: z.boolean().default(true) })

/** Body of `POST /sandboxes/{id}/timeout`. */
export const timeoutRequest = z.object({ timeout: seconds })

/** Body of `POST /sandboxes/{id}/pause`. */
export const pauseRequest = z.object({ memory: z.boolean().default(true) })

/** Query of `GET /v2/sandboxes`. */
export const listQuery = z.object({
  metadata: z.string().optional(),
  state: z.string().default('running,paused'),
  startedAfter: z.iso.datetime({ offset: true }).optional(),
  template: z.string().optional(),
  order: z.enum(['asc', 'desc']).default('desc'),
  limit: z.coerce.number().int().min(1).max(100).default(100),
  nextToken: z.string().optional(),
})

/** Query of `GET /sandboxes/{id}/metrics`, in Unix seconds. */
export const metricsQuery = z.object({
  start: z.coerce.number().int().nonnegative().optional(),
  end: z.coerce.number().int().nonnegative().optional(),
})

/** Body of `POST /volumes`. */
export const volumeRequest = z.object({
  name: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$/, 'letters, digits, - and _, at most 128'),
})
