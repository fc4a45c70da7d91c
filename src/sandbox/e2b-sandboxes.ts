import { type ConnectionOpts, Sandbox } from 'e2b'
import type { CallOptions } from '../call-options.js'
import { E2bSandbox } from './e2b-sandbox.js'
import { mapSandboxError } from './map-sandbox-error.js'
import type {
  CreateSandboxOptions,
  RemoteSandbox,
  SandboxProvider,
  SandboxSummary,
} from './remote-sandbox.js'

/** How to reach E2B; anything left out comes from the variables that the E2B SDK itself reads (`E2B_API_KEY`, `E2B_DOMAIN`, …). */
export interface E2bOptions {
  readonly apiKey?: string | undefined
  readonly domain?: string | undefined
  /** Base URL of the control plane, for self-hosted and local servers. */
  readonly apiUrl?: string | undefined
  /** Base URL for traffic to sandboxes, for self-hosted and local servers. */
  readonly sandboxUrl?: string | undefined
  /** Base URL of the volume API. @default the SDK's own */
  readonly volumeApiUrl?: string | undefined
}

/** The E2B SDK's connection options, without keys that are set to nothing. */
export function toConnectionOpts(options: E2bOptions): ConnectionOpts {
  const { volumeApiUrl: _, ...own } = options
  return Object.fromEntries(Object.entries(own).filter(([, value]) => value !== undefined))
}

/** Sandboxes of E2B, or of anything that speaks its protocol. */
export class E2bSandboxes implements SandboxProvider {
  readonly #connection: ConnectionOpts

  constructor(options: E2bOptions) {
    this.#connection = toConnectionOpts(options)
  }

  async create(options: CreateSandboxOptions): Promise<RemoteSandbox> {
    const { template, timeoutMs, metadata, envs, volumeMounts, network, signal } = options
    signal?.throwIfAborted()
    const request = {
      ...this.#connection,
      timeoutMs,
      metadata: { ...metadata },
      envs: { ...envs },
      // Paused, a sandbox keeps what it has not delivered; killed, it would not.
      lifecycle: { onTimeout: 'pause' as const },
      ...(volumeMounts === undefined ? {} : { volumeMounts: { ...volumeMounts } }),
      ...(network === undefined
        ? {}
        : { network: { allowOut: [...network.allowOut], denyOut: [...network.denyOut] } }),
      ...(signal === undefined ? {} : { signal }),
    }
    try {
      const made = await (template === undefined
        ? Sandbox.create(request)
        : Sandbox.create(template, request))
      return new E2bSandbox(made)
    } catch (error) {
      throw mapSandboxError(error, 'create a sandbox', signal)
    }
  }

  async connect(sandboxId: string, timeoutMs: number, { signal }: CallOptions = {}): Promise<RemoteSandbox> {
    signal?.throwIfAborted()
    try {
      return new E2bSandbox(
        await Sandbox.connect(sandboxId, {
          ...this.#connection,
          timeoutMs,
          ...(signal === undefined ? {} : { signal }),
        }),
      )
    } catch (error) {
      throw mapSandboxError(error, `connect to sandbox ${sandboxId}`, signal)
    }
  }

  async kill(sandboxId: string, { signal }: CallOptions = {}): Promise<boolean> {
    signal?.throwIfAborted()
    const options = { ...this.#connection, ...(signal === undefined ? {} : { signal }) }
    try {
      return await Sandbox.kill(sandboxId, options)
    } catch (error) {
      throw mapSandboxError(error, `kill sandbox ${sandboxId}`, signal)
    }
  }

  async *list(
    metadata: Readonly<Record<string, string>>,
    { signal }: CallOptions = {},
  ): AsyncGenerator<SandboxSummary, void, undefined> {
    const pages = Sandbox.list({ ...this.#connection, query: { metadata: { ...metadata } } })
    while (pages.hasNext) {
      signal?.throwIfAborted()
      let items: Awaited<ReturnType<typeof pages.nextItems>>
      try {
        items = await pages.nextItems(signal === undefined ? {} : { signal })
      } catch (error) {
        throw mapSandboxError(error, 'list sandboxes', signal)
      }
      for (const item of items) {
        const { sandboxId: id, state, startedAt, metadata } = item
        yield { id, state, startedAt, metadata }
      }
    }
  }
}
