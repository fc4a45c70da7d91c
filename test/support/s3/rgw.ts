import { execFile } from 'node:child_process'
import { randomBytes, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, mkdtemp, readdir, readFile, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { type CephInstallation, type CephProgram, findRgw, rgwSetupHint } from './find-rgw.js'
import { type GuardedProcess, startFolderGuard, startGuarded } from './guarded-process.js'

const startLimitMs = 20_000
const startAttempts = 3
/** The one key that its key service has. */
export const RGW_KMS_KEY = 'tests'
const clientName = 'client.rgw'
const trustPolicy = JSON.stringify({
  Version: '2012-10-17',
  Statement: [
    { Effect: 'Allow', Principal: { AWS: ['arn:aws:iam:::user/tests'] }, Action: ['sts:AssumeRole'] },
  ],
})
const rolePolicy = JSON.stringify({
  Version: '2012-10-17',
  Statement: [{ Effect: 'Allow', Action: ['s3:*'], Resource: ['arn:aws:s3:::*'] }],
})
const run = promisify(execFile)

/** How to reach a running RGW; plain data, so that it can be handed to test workers. */
export interface RgwAccess {
  /** The S3 endpoint, and the STS endpoint as well. */
  readonly url: string
  readonly region: string
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string }
  /** A role the user may assume; it allows everything, and a session policy narrows it. */
  readonly roleArn: string
}

/** A running RGW of this process's own. */
export interface Rgw extends AsyncDisposable {
  readonly access: RgwAccess
  /** Kills the S3 server alone; what it acknowledged stays in the cluster. */
  killGateway(): Promise<void>
  /** Starts it again at the same address. */
  startGateway(): Promise<void>
  close(): Promise<void>
}

/**
 * Starts a Ceph cluster of one monitor, one in-memory OSD and one RGW on loopback. It ends with this process, also
 * when that is killed. Rejects with the logs' last lines when it does not come up.
 */
export async function startRgw(): Promise<Rgw> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await startOnce()
    } catch (error) {
      // Somebody else on this machine took a port between its choice and its use.
      const isTaken = /Address already in use/.test(String(error))
      if (!isTaken || attempt === startAttempts) throw error
    }
  }
}

async function startOnce(): Promise<Rgw> {
  const ceph = findRgw()
  if (ceph === undefined) throw new Error(`Ceph RGW is not on this machine: ${rgwSetupHint}.`)
  const folder = await mkdtemp(join(tmpdir(), 'rgw-'))
  const folderGuard = startFolderGuard(folder)
  const running: GuardedProcess[] = []
  const close = async () => {
    await Promise.all(running.map((process) => process.stop()))
    await folderGuard.stop()
  }
  try {
    const { access, startGateway } = await startCluster(ceph, folder, running)
    return {
      access,
      killGateway: async () => {
        await running.pop()?.stop()
      },
      startGateway,
      close,
      [Symbol.asyncDispose]: close,
    }
  } catch (cause) {
    const logs = await readLogs(folder)
    await close()
    throw new Error(`Ceph RGW did not start: ${cause instanceof Error ? cause.message : cause}\n${logs}`, {
      cause,
    })
  }
}

/** The order of the steps, and most settings, are what makes it come up in little more than a second. */
async function startCluster(
  ceph: CephInstallation,
  folder: string,
  running: GuardedProcess[],
): Promise<{ readonly access: RgwAccess; startGateway(): Promise<void> }> {
  const signal = AbortSignal.timeout(startLimitMs)
  const [monPort, rgwPort] = await freePorts()
  const fsid = randomUUID()
  const env = { ...ceph.env, CEPH_CONF: join(folder, 'ceph.conf') }
  const call = async (program: CephProgram, ...args: string[]) => {
    const [file = '', ...first] = ceph.command(program)
    return run(file, [...first, ...args], { env, signal, cwd: folder })
  }
  const start = (program: CephProgram, ...args: string[]) => {
    const daemon = startGuarded(
      [...ceph.command(program), '-f', ...args],
      env,
      join(folder, `${program}.out`),
    )
    running.push(daemon)
    return daemon
  }
  await writeConfig(ceph, folder, { fsid, monPort, rgwPort })

  const monmap = join(folder, 'monmap')
  await call('monmaptool', '--create', '--addv', 'a', `[v1:127.0.0.1:${monPort}]`, '--fsid', fsid, monmap)
  await call('ceph-mon', '--mkfs', '-i', 'a', '--monmap', monmap)
  const mon = start('ceph-mon', '-i', 'a')

  const osdId = randomUUID()
  // A command can reach the monitor before its sender knows the cluster's id, and is then refused; each may be said twice.
  const tell = async (...args: string[]): Promise<void> => {
    for (;;) {
      try {
        await call('ceph', ...args)
        return
      } catch (error) {
        if (!String(error).includes('problem getting command descriptions')) throw error
        signal.throwIfAborted()
      }
    }
  }
  const createOsd = async () => {
    await tell('osd', 'new', osdId)
    await tell('osd', 'crush', 'add', 'osd.0', '1.0', 'host=h', 'root=default')
    await call('ceph-osd', '-i', '0', '--mkfs', '--osd-uuid', osdId)
  }
  await Promise.race([createOsd(), mon.failed])
  const osd = start('ceph-osd', '-i', '0')

  const credentials = {
    accessKeyId: randomBytes(10).toString('hex').toUpperCase(),
    secretAccessKey: randomBytes(20).toString('hex'),
  }
  // The gateway is the last that is started, so that it is the one to be killed.
  const rgw = start('radosgw', '-n', clientName)
  const url = `http://127.0.0.1:${rgwPort}`
  const prepared = Promise.all([createUser(call, credentials), untilReady(url, signal)])
  const [roleArn] = await Promise.race([prepared, mon.failed, osd.failed, rgw.failed])
  return {
    access: { url, region: 'us-east-1', credentials, roleArn },
    startGateway: async () => {
      const again = start('radosgw', '-n', clientName)
      await Promise.race([untilReady(url, AbortSignal.timeout(startLimitMs)), again.failed])
    },
  }
}

/** Creates the user the tests sign as, and a role it may assume; returns the role's ARN. */
async function createUser(
  call: (program: CephProgram, ...args: string[]) => Promise<{ stdout: string }>,
  { accessKeyId, secretAccessKey }: RgwAccess['credentials'],
): Promise<string> {
  const admin = (...args: string[]) => call('radosgw-admin', '-n', clientName, ...args)
  await admin(
    'user',
    'create',
    '--uid=tests',
    '--display-name=tests',
    `--access-key=${accessKeyId}`,
    `--secret=${secretAccessKey}`,
    '--caps=roles=*',
  )
  const role = await admin('role', 'create', '--role-name=worker', `--assume-role-policy-doc=${trustPolicy}`)
  await admin('role-policy', 'put', '--role-name=worker', '--policy-name=all', `--policy-doc=${rolePolicy}`)
  const { Arn } = JSON.parse(role.stdout) as { Arn: string }
  return Arn
}

async function writeConfig(
  { libraries }: CephInstallation,
  folder: string,
  { fsid, monPort, rgwPort }: { fsid: string; monPort: number; rgwPort: number },
): Promise<void> {
  const sections = {
    global: {
      fsid,
      mon_host: `[v1:127.0.0.1:${monPort}]`,
      auth_cluster_required: 'none',
      auth_service_required: 'none',
      auth_client_required: 'none',
      plugin_dir: join(libraries, 'ceph'),
      erasure_code_dir: join(libraries, 'ceph/erasure-code'),
      osd_class_dir: join(libraries, 'rados-classes'),
      osd_pool_default_size: 1,
      osd_pool_default_min_size: 1,
      osd_pool_default_pg_num: 1,
      osd_pool_default_pg_autoscale_mode: 'off',
      mon_allow_pool_size_one: true,
      mon_max_pg_per_osd: 5000,
      osd_crush_chooseleaf_type: 0,
      run_dir: folder,
      admin_socket: join(folder, '$name.asok'),
      log_file: join(folder, '$name.log'),
      mon_cluster_log_file: join(folder, 'cluster.log'),
      keyring: join(folder, 'keyring'),
      ms_bind_msgr2: false,
      public_addr: '127.0.0.1',
      cluster_addr: '127.0.0.1',
      osd_objectstore: 'memstore',
      memstore_device_bytes: 4 * 2 ** 30,
      // Elections and map changes wait for these; the defaults cost ten seconds.
      paxos_propose_interval: 0.05,
      paxos_min_wait: 0.02,
      mon_osd_min_up_ratio: 0,
    },
    mon: { mon_data: join(folder, 'mon') },
    // Without the two, some starts hang.
    osd: {
      osd_data: join(folder, 'osd'),
      osd_class_update_on_start: false,
      osd_crush_update_on_start: false,
    },
    [clientName]: {
      rgw_data: join(folder, 'rgw'),
      // Without it every answer waits for a delayed acknowledgement.
      rgw_frontends: `beast endpoint=127.0.0.1:${rgwPort} tcp_nodelay=1`,
      rgw_thread_pool_size: 32,
      rgw_s3_auth_use_sts: true,
      rgw_sts_key: randomBytes(8).toString('hex'),
      // A key service of Ceph's own for tests, which encrypts like any other: https://docs.ceph.com/en/pacific/radosgw/encryption/
      rgw_crypt_require_ssl: false,
      rgw_crypt_s3_kms_backend: 'testing',
      rgw_crypt_s3_kms_encryption_keys: `${RGW_KMS_KEY}=${randomBytes(32).toString('base64')}`,
    },
  }
  const text = Object.entries(sections).map(
    ([name, values]) =>
      `[${name}]\n${Object.entries(values)
        .map(([key, value]) => `${key} = ${value}\n`)
        .join('')}`,
  )
  await writeFile(join(folder, 'ceph.conf'), text.join('\n'), { mode: 0o600 })
  await writeFile(join(folder, 'keyring'), '')
  for (const name of ['mon', 'osd', 'rgw']) await mkdir(join(folder, name))
}

/** Resolves when the server answers HTTP at all. */
async function untilReady(url: string, signal: AbortSignal): Promise<void> {
  for (;;) {
    signal.throwIfAborted()
    try {
      await fetch(url, { signal })
      return
    } catch (error) {
      if (signal.aborted) throw error
      await delay(20, undefined, { signal })
    }
  }
}

/** Two ports that were free a moment ago. */
async function freePorts(): Promise<[number, number]> {
  const servers = [createServer(), createServer()] as const
  try {
    for (const server of servers) {
      server.listen(0, '127.0.0.1')
      await once(server, 'listening')
    }
    return [portOf(servers[0]), portOf(servers[1])]
  } finally {
    for (const server of servers) server.close()
  }
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port
}

async function readLogs(folder: string): Promise<string> {
  const names = (await readdir(folder)).filter((name) => /\.(log|out)$/.test(name))
  const tails = names.map(async (name) => {
    const lines = (await readFile(join(folder, name), 'utf8')).trim().split('\n')
    return `--- ${name}\n${lines.slice(-15).join('\n')}`
  })
  return (await Promise.all(tails)).join('\n')
}
