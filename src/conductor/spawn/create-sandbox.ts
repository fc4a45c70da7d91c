import { setTimeout as delay } from 'node:timers/promises'
import { isConductorError } from '../../errors.js'
import { wasNeverSent } from '../../sandbox/map-sandbox-error.js'
import type { CreateSandboxOptions, RemoteSandbox, SandboxProvider } from '../../sandbox/remote-sandbox.js'
import { backOffMs, insist } from '../back-off.js'
import { METADATA } from '../sandbox-metadata.js'

/** How often sandboxes that nobody asked for are looked for while E2B is away: for some minutes. */
const MAX_REMOVALS = 12

/** A new sandbox, and what to do about others that the same spawn may have made. */
export interface CreatedSandbox {
  readonly sandbox: RemoteSandbox
  /** Kills sandboxes whose making nobody heard of; does nothing when every answer arrived. */
  removeStrays(): Promise<void>
}

/**
 * Creates a sandbox, again when E2B could not. Where an answer was lost the sandbox may exist all the same: it is then found by
 * the spawn's id in its metadata, and taken; or removed where nothing comes of the spawn, in the background while E2B is away.
 * Giving it up waits for the answer to what was asked: a request that is cut off is carried out no less.
 */
export async function createSandbox(
  provider: SandboxProvider,
  { signal, ...request }: CreateSandboxOptions,
  retries: number,
): Promise<CreatedSandbox> {
  const mark = { [METADATA.spawn]: request.metadata[METADATA.spawn] ?? '' }
  let isUncertain = false
  const removeAllBut = async (kept?: string): Promise<void> => {
    for await (const { id } of provider.list(mark)) {
      if (id !== kept) await provider.kill(id)
    }
  }
  const created = (sandbox: RemoteSandbox): CreatedSandbox => ({
    sandbox,
    removeStrays: async () => {
      if (isUncertain) await removeAllBut(sandbox.id)
    },
  })
  try {
    for (let retry = 0; ; retry++) {
      signal?.throwIfAborted()
      try {
        if (isUncertain) {
          for await (const { id } of provider.list(mark, { signal })) {
            return created(await provider.connect(id, request.timeoutMs, { signal }))
          }
        }
        const sandbox = await provider.create(request)
        if (signal?.aborted) isUncertain = true
        signal?.throwIfAborted()
        return created(sandbox)
      } catch (error) {
        if (!isConductorError(error) || !error.retryable) throw error
        isUncertain ||= !wasNeverSent(error)
        if (retry === retries) throw error
        await delay(backOffMs(retry), undefined, { signal })
      }
    }
  } catch (error) {
    if (isUncertain) {
      // What is still there once this is given up, too, the task's next spawn or recover() removes.
      await removeAllBut().catch(() => void insist(() => removeAllBut(), MAX_REMOVALS).catch(() => {}))
    }
    throw signal?.aborted ? signal.reason : error
  }
}
