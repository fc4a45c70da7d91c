import { describe, expect, it } from 'vitest'
import type { Conductor } from '../../../src/conductor/conductor.js'
import { S3Manifests } from '../../../src/stores/s3/s3-manifests.js'
import type { TestStack } from '../../support/stack.js'
import { thorough } from '../../support/thorough.js'
import { useConductor } from '../../support/use-conductor.js'

/** Nothing that the worker stores reaches S3 by itself, and what it stored is acknowledged. */
const FAR = `mv /workspace/.results/.worker/*/grant.json /tmp/grant
export AWS_ENDPOINT_URL_S3=http://127.0.0.1:1 WORKER_RESULTS_DEADLINE_SECONDS=1 WORKER_RESULTS_ENDPOINT=http://127.0.0.1:1
echo precious >/workspace/kept; persist-result --quiet /workspace/kept >/dev/null 2>&1 || exit 9; cd /
BIN=$(echo /workspace/.results/.worker/*/bin)
`

describe('a worker that spoiled its own sandbox', () => {
  let stack: TestStack
  let conductor: Conductor
  useConductor((aStack, aConductor) => {
    stack = aStack
    conductor = aConductor
  })

  const lie = `cat >$BIN/persist-result <<'END'
echo '{"v":1,"outputs":[],"records":[]}'
END
`
  const spoils: Readonly<Record<string, string>> = {
    'cwd-gone': 'rm -rf /workspace/in',
    'profile-prints':
      'for f in .profile .bash_profile .bashrc; do echo "echo Now using node v20" >>~/$f; done',
    'profile-ends': 'echo "exit 3" >~/.bash_profile',
    'tools-gone': 'rm -rf $BIN',
    'tools-in-the-way': 'rm -rf $BIN; echo >$BIN',
    'tools-sleep': 'printf "sleep 1000000\\n" >$BIN/persist-result',
    'tools-lie': lie,
    'tools-lie-well': `${lie}touch -d "1 hour ago" $BIN/*`,
    'tools-fail-well': `echo "exit 4" >$BIN/persist-result; touch -d "1 hour ago" $BIN/*`,
    'spool-shut': 'chmod 000 /workspace/.results/*/',
  }

  it('delivers what lies there all the same', async () => {
    const failed: unknown[] = []
    await Promise.all(
      Object.entries(spoils).map(async ([taskId, spoil]) => {
        try {
          const worker = await conductor.spawnWorker({
            taskId,
            cwd: '/workspace/in',
            files: { '/workspace/in/x': '' },
            outputs: taskId.includes('lie') ? [] : ['/workspace/out', 'never'],
            command: `${FAR}echo out >/workspace/out\n${spoil}`,
          })
          expect(await worker.wait()).toMatchObject({ exitCode: 0 })
          const receipt = await worker.terminate()
          expect(receipt).toMatchObject({ sealed: true, failedOutputs: [], undelivered: [] })
          const wanted = taskId.includes('lie') ? ['kept'] : ['kept', 'out']
          expect(receipt.results.map(({ key, tiers, verified }) => [key.slice(-4), tiers, verified])).toEqual(
            wanted.map((name) => [expect.stringContaining(name), ['s3'], true]),
          )
          expect(await (await conductor.results(taskId).latest('kept'))?.text()).toBe('precious\n')
        } catch (error) {
          failed.push([taskId, error instanceof Error ? error.message.slice(0, 600) : error])
        }
      }),
    )
    expect(failed).toEqual([])
    expect(await stack.sandboxCount()).toBe(0)
  })

  it('has what it delivered told though it removed all that its sandbox had of it', async () => {
    const worker = await conductor.spawnWorker({
      taskId: 'wiped',
      command: 'echo far | persist-result --quiet --name far - >/dev/null; rm -rf /workspace/.results',
    })
    const receipt = await worker.wait().then(() => worker.terminate())
    expect(receipt.undelivered).toEqual([])
    expect(receipt.results.map(({ key }) => key.slice(22))).toEqual(['far', 'death-certificate.json'])
    expect(await new S3Manifests(stack.at).read('wiped')).toMatchObject({ complete: false })
  })

  it('and whose sandbox then vanishes has what it was seen to hold named as lost', async () => {
    const worker = await conductor.spawnWorker({
      taskId: 'vanishing',
      command: `until [ -e go ]; do sleep 0.02; done; ${FAR}sleep 1000`,
    })
    const heard = new Promise<string>((told) => worker.on('result', ({ key }) => told(key)))
    await stack.inSandbox(worker.sandboxId, 'touch /workspace/go')
    const key = await heard
    await stack.killSandbox(worker.sandboxId)
    const receipt = await worker.terminate()
    const undelivered = [{ key, reason: 'its sandbox is gone' }]
    expect(receipt).toMatchObject({ outcome: 'lost', undelivered })
    const certificate = await conductor.results('vanishing').latest('death-certificate.json')
    expect(await certificate?.json()).toMatchObject({
      evidence: expect.arrayContaining([
        expect.stringContaining(`1 result(s) that it held were given up: ${key}`),
      ]),
    })
    const manifest = await new S3Manifests(stack.at).read('vanishing')
    expect(manifest).toMatchObject({ complete: false, attempts: [{ undelivered }] })
  })

  // A drain is given its time before it counts as stuck.
  for (const taskId of thorough ? ['hanging'] : []) {
    it('is killed in time though its tools hang, also where somebody waits for them', async () => {
      const worker = await conductor.spawnWorker({
        taskId,
        outputs: ['/workspace/kept'],
        command: `${FAR}echo "sleep 1000000" >$BIN/persist-result; touch -d "1 hour ago" $BIN/*`,
      })
      await worker.wait()
      const patient = worker.terminate()
      const receipt = await worker.kill()
      expect(await patient).toBe(receipt)
      expect(receipt).toMatchObject({
        sealed: true,
        undelivered: [],
        failedOutputs: [{ path: '/workspace/kept' }],
      })
      expect(receipt.results.map(({ key }) => key.slice(-4))).toEqual(['kept'])
    }, 60_000)
  }
})
