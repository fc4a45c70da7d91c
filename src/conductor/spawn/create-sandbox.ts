import { setTimeout as delay } from 'node:timers/promises'
import { isConductorError } from '../../errors.js'
import type { CreateSandboxOptions, RemoteSandbox, SandboxProvider } from '../../sandbox/remote-sandbox.js'
import { backOffMs } from '../back-off.js'
import { METADATA } from '../sandbox-metadata.js'

/** A new sandbox, and what to do about others that the same spawn may have made. */
export interface CreatedSandbox {
  readonly sandbox: RemoteSandbox
  /** Kills sandboxes whose making nobody heard of; does nothing when every answer arrived. */
  removeStrays(): Promise<void>
}

/**
 * Creates a sandbox, again when E2B could not. Where an answer was lost the sandbox may exist all the same: it is then found by
 * the spawn's id in its metadata, and taken.
 */
export async function createSandbox(
  provider: SandboxProvider,
  request: CreateSandboxOptions,
  retries: number,
): Promise<CreatedSandbox> {
  const { signal, timeoutMs } = request
  const mark = { [METADATA.spawn]: request.metadata[METADATA.spawn] ?? '' }
  let isUncertain = false
  const created = (sandbox: RemoteSandbox): CreatedSandbox => ({
    sandbox,
    removeStrays: async () => {
      if (!isUncertain) return
      for await (const { id } of provider.list(mark)) {
        if (id !== sandbox.id) await provider.kill(id)
      }
    },
  })
  for (let retry = 0; ; retry++) {
    try {
      if (isUncertain) {
        for await (const { id } of provider.list(mark, { signal })) {
          return created(await provider.connect(id, timeoutMs, { signal }))
        }
      }
      return created(await provider.create(request))
    } catch (error) {
      if (!isConductorError(error) || !error.retryable || retry === retries) throw error
      isUncertain = true
      await delay(backOffMs(retry), undefined, { signal })
    }
  }
}
