import { CPU_COUNT, MEMORY_MB } from '../sandbox/metrics.js'
import type { Sandbox } from '../sandbox/sandbox.js'

/** What this server says its envd is: the newest that the SDK asks anything of. */
const ENVD_VERSION = '0.6.13'
const CLIENT_ID = 'local'
const DISK_MB = 10_240

/** A sandbox as create and connect answer. */
export function presentConnection({ config }: Sandbox): object {
  return {
    sandboxID: config.id,
    templateID: config.templateId,
    clientID: CLIENT_ID,
    envdVersion: ENVD_VERSION,
    envdAccessToken: config.accessToken,
  }
}

/** A sandbox in a list. */
export function presentListed(sandbox: Sandbox): object {
  const { config, startedAt, endAt, state } = sandbox
  return {
    sandboxID: config.id,
    templateID: config.templateId,
    clientID: CLIENT_ID,
    startedAt: startedAt.toISOString(),
    endAt: endAt.toISOString(),
    state,
    cpuCount: CPU_COUNT,
    memoryMB: MEMORY_MB,
    diskSizeMB: DISK_MB,
    envdVersion: ENVD_VERSION,
    metadata: config.metadata,
    volumeMounts: config.volumes,
  }
}

/** A sandbox asked for by itself. */
export function presentDetail(sandbox: Sandbox): object {
  const { onTimeout, autoResume, network, allowInternetAccess, accessToken } = sandbox.config
  return {
    ...presentListed(sandbox),
    lifecycle: { onTimeout, autoResume },
    envdAccessToken: accessToken,
    ...(network === undefined ? {} : { network }),
    ...(allowInternetAccess === undefined ? {} : { allowInternetAccess }),
  }
}
