import { spawnSync } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { GetObjectCommand, S3Client } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type LocalStack, startLocalStack } from '../../src/local/stack.js'
import { formatTimestamp } from '../../src/protocol/key.js'
import type { Result } from '../../src/results/result.js'
import { leaveOut } from '../support/leave-out.js'
import { run } from '../support/persister/program.js'
import { recordFor } from '../support/records.js'
import { makeTempDir } from '../support/temp-dir.js'
import { type GuideWorkerOptions, nodeScript, startGuideWorker, TASK } from './guide-worker.js'
import { startPlainEndpoint } from './plain-endpoint.js'
import { readArchive } from './read-archive.js'

// The users' guide from top to bottom: each of its snippets stands here word for word and is run in a worker. Where one has
// a placeholder, what is put in its place is said beside it. The stack's bucket has the guide's own name.
const BUCKET = 'my-results-bucket'

const HAS_AWS = spawnSync('aws', ['--version']).status === 0
if (!HAS_AWS) leaveOut('retrieval "From S3"', '`aws` is not on PATH')

let stack: LocalStack
let s3: S3Client
beforeAll(async () => {
  stack = await startLocalStack({ bucket: BUCKET })
  s3 = new S3Client({
    endpoint: stack.s3.url,
    region: stack.s3.region,
    credentials: stack.s3.credentials,
    forcePathStyle: true,
  })
})
afterAll(async () => {
  s3?.destroy()
  await stack?.close()
})

const startWorker = (options?: GuideWorkerOptions) => startGuideWorker(stack, options)
/** A worker that knows of no remote tier until a snippet tells it. */
const startLonelyWorker = (files: Readonly<Record<string, string>>) =>
  startWorker({ files, conductor: { s3: null, http: null } })

const OUTPUT = '{"answer": 42}\n'
const FILES = { '/workspace/output.json': OUTPUT }
/** The result that the guide's retrievals name, as a worker's spool has it. */
const GUIDE_KEY = 'worker-123/20260114-120000-output.json'
const GUIDE_RESULT = '{"from": "the fourteenth of January"}\n'
const SPOOLED = {
  [`/workspace/.results/${GUIDE_KEY}`]: GUIDE_RESULT,
  [`/workspace/.results/${GUIDE_KEY}.meta.json`]: JSON.stringify(
    recordFor({ taskId: TASK, name: 'output.json' }, Buffer.from(GUIDE_RESULT)),
  ),
}

const S3_SETTINGS = `
export WORKER_RESULTS_S3_BUCKET="my-results-bucket"
export WORKER_RESULTS_S3_PREFIX="results"  # Optional, default: "results"
export AWS_ACCESS_KEY_ID="AKIA..."
export AWS_SECRET_ACCESS_KEY="..."
export AWS_DEFAULT_REGION="us-east-1"  # Optional, default: "us-east-1"
`

/** The guide's S3 settings: for `AKIA...` and `...` the stack's keys, and further where the S3 is that is not AWS's own. */
function configureS3({ url = stack.s3.url, secret = stack.s3.credentials.secretAccessKey } = {}): string {
  const { accessKeyId } = stack.s3.credentials
  const settings = S3_SETTINGS.replace('AKIA...', () => accessKeyId).replace('"..."', () => `"${secret}"`)
  return `${settings}export AWS_ENDPOINT_URL_S3="${url}"\n`
}

/** The guide's HTTP settings: for `https://api.example.com/results` another URL. */
function configureHttp(url: string): string {
  return `
export WORKER_RESULTS_ENDPOINT="https://api.example.com/results"
`.replace('https://api.example.com/results', url)
}

/** A second of retries is enough for a tier that stays down. */
const IMPATIENT = 'export WORKER_RESULTS_DEADLINE_SECONDS=1'

const PERSIST_WITH_METADATA = `
persist-result --metadata '{
  "status": "complete",
  "duration_ms": 45000,
  "records_processed": 10000,
  "version": "1.0.0"
}' output.json
`
const METADATA = { status: 'complete', duration_ms: 45000, records_processed: 10000, version: '1.0.0' }

function lines(text: string): string[] {
  return text.split('\n').filter((line) => line !== '')
}

/** What `env` printed; values here have no line breaks. */
function parseEnv(text: string): Record<string, string> {
  return Object.fromEntries(lines(text).map((line) => line.split(/=(.*)/s).slice(0, 2)))
}

/** For the AWS command line on this machine: the stack's keys and place, and nothing of the machine's own settings. */
function awsEnvironment(): Record<string, string> {
  const none = '/dev/null'
  return {
    ...stack.env,
    HOME: process.env.HOME ?? '',
    AWS_CONFIG_FILE: none,
    AWS_SHARED_CREDENTIALS_FILE: none,
  }
}

/** Content and metadata by name, as far as it is text. */
async function contents(
  results: readonly Result[],
): Promise<Record<string, readonly [text: string, metadata: object]>> {
  const entries = results.map(
    async (result) => [result.name, [await result.text(), result.metadata]] as const,
  )
  return Object.fromEntries(await Promise.all(entries))
}

describe('Quick Start', () => {
  it('Bash Usage', async () => {
    await using worker = await startWorker({
      files: {
        ...FILES,
        '/workspace/report.pdf': '%PDF-1.7\n',
        '/workspace/results-directory/a.txt': 'a',
        '/workspace/results-directory/deep/b.txt': 'b',
      },
    })
    const { stdout } = await worker.bash(`
# Store a file
persist-result output.json

# Store with custom name and metadata
persist-result --name "final-report" --metadata '{"status":"complete","version":"1.0"}' report.pdf

# Store a directory (automatically archived)
persist-result --task-id worker-123 ./results-directory
`)
    const results = await worker.finish()
    expect(results.map(({ key }) => key)).toEqual(lines(stdout).sort())
    const archive = results.find(({ name }) => name === 'results-directory.tar.gz')
    expect(await readArchive((await archive?.bytes()) ?? new Uint8Array())).toEqual({
      'results-directory/a.txt': 'a',
      'results-directory/deep/b.txt': 'b',
    })
    expect(await contents(results.filter((result) => result !== archive))).toEqual({
      'output.json': [OUTPUT, {}],
      'final-report': ['%PDF-1.7\n', { status: 'complete', version: '1.0' }],
    })
  })

  const NODE_USAGE = `
const { persistResult, listResults, retrieveResult } = require('persist-result.js');

// Store a file
await persistResult('/workspace/output.json', {
  name: 'final-report',
  metadata: { status: 'complete', version: '1.0' },
  taskId: 'worker-123'
});

// Store string content
await persistResult('{"result": "success"}', {
  name: 'status.json'
});

// Store Buffer
const buffer = Buffer.from('binary data');
await persistResult(buffer, {
  name: 'data.bin',
  contentType: 'application/octet-stream'
});

// List results for a task
const results = await listResults('worker-123');
console.log(results);

// Retrieve a result
const content = await retrieveResult('worker-123/20260114-120000-output.json');
`
  it('Node.js Usage', async () => {
    const script = nodeScript(NODE_USAGE, { after: 'process.stdout.write(content)' })
    await using worker = await startWorker({ files: { ...FILES, ...SPOOLED } })
    const { stdout } = await worker.node(script)
    const results = await worker.finish()
    for (const { key } of results) expect(stdout).toContain(`key: '${key}'`)
    expect(stdout.endsWith(GUIDE_RESULT)).toBe(true)
    expect(await contents(results)).toEqual({
      'final-report': [OUTPUT, { status: 'complete', version: '1.0' }],
      'status.json': ['{"result": "success"}', {}],
      'data.bin': ['binary data', {}],
      'output.json': [GUIDE_RESULT, {}],
    })
    const data = results.find(({ name }) => name === 'data.bin')
    expect(data?.contentType).toBe('application/octet-stream')
  })
})

describe('Configuration', () => {
  it('S3 Storage, with metadata on the object', async () => {
    await using worker = await startLonelyWorker(FILES)
    const { stdout, stderr } = await worker.bash(configureS3() + PERSIST_WITH_METADATA)
    expect(stderr).toBe('')
    const object = await s3.send(new GetObjectCommand({ Bucket: BUCKET, Key: `results/${stdout.trim()}` }))
    expect(await object.Body?.transformToString()).toBe(OUTPUT)
    expect(JSON.parse(object.Metadata?.metadata ?? '')).toEqual(METADATA)
  })

  it('HTTP POST Storage, with the four fields of the form', async () => {
    await using endpoint = await startPlainEndpoint()
    await using worker = await startLonelyWorker(FILES)
    const { stdout, stderr } = await worker.bash(configureHttp(endpoint.url) + PERSIST_WITH_METADATA)
    expect(stderr).toBe('')
    const [form, ...more] = endpoint.forms
    expect(more).toEqual([])
    expect(form).toMatchObject({ file: OUTPUT, key: stdout.trim(), task_id: TASK })
    expect(JSON.parse(form?.metadata ?? '')).toEqual(METADATA)
  })

  it('Local Persistence, with metadata in a file beside the result', async () => {
    await using worker = await startLonelyWorker(FILES)
    const { stdout } = await worker.bash(`
export WORKER_RESULTS_LOCAL_DIR="/workspace/.results"  # Optional, default: "/workspace/.results"
${PERSIST_WITH_METADATA}`)
    const path = `/workspace/.results/${stdout.trim()}`
    expect((await worker.bash(`cat ${path}`)).stdout).toBe(OUTPUT)
    const record: unknown = JSON.parse((await worker.bash(`cat ${path}.meta.json`)).stdout)
    expect(record).toMatchObject({ key: stdout.trim(), metadata: METADATA })
  })

  it('the tiers are tried in order until one succeeds', async () => {
    await using down = await startPlainEndpoint(503)
    await using endpoint = await startPlainEndpoint()
    await using worker = await startLonelyWorker(FILES)
    const { stdout, stderr } = await worker.bash(`
${configureS3({ url: down.url })}${configureHttp(endpoint.url)}${IMPATIENT}
persist-result output.json`)
    expect(stderr).toMatch(/^persist-result: S3 storage failed: /)
    expect(endpoint.forms).toMatchObject([{ key: stdout.trim(), file: OUTPUT }])
    expect((await worker.bash('persist-result --list')).stdout).toBe(stdout)
  })
})

describe('Storage Key Format', () => {
  // The guide's examples: worker-123/20260114-120000-output.json, worker-456/20260114-121530-report.pdf.tar.gz
  it('is the task, the UTC time and the name', async () => {
    await using worker = await startLonelyWorker({ ...FILES, '/workspace/report.pdf/page-1.txt': 'one' })
    const before = formatTimestamp(new Date())
    const { stdout } = await worker.bash(`
export TZ=Asia/Tokyo
persist-result output.json
WORKER_ID=worker-456 persist-result report.pdf`)
    const after = formatTimestamp(new Date())
    const keys = lines(stdout)
    expect(keys).toEqual([
      expect.stringMatching(/^worker-123\/\d{8}-\d{6}-output\.json$/),
      expect.stringMatching(/^worker-456\/\d{8}-\d{6}-report\.pdf\.tar\.gz$/),
    ])
    for (const key of keys) {
      const timestamp = key.split('/')[1]?.slice(0, after.length) ?? ''
      expect(timestamp >= before && timestamp <= after, `${before} ${timestamp} ${after}`).toBe(true)
    }
  })
})

describe('Use Cases', () => {
  const REQUIRE = "const { persistResult } = require('persist-result.js')"

  it('1. Long-Running Tasks', async () => {
    await using worker = await startWorker({ files: { '/workspace/results.json': '[1, 2]\n' } })
    await worker.bash(`
# At the end of a long task
persist-result --name "analysis-complete" results.json
`)
    expect(await contents(await worker.finish())).toEqual({ 'analysis-complete': ['[1, 2]\n', {}] })
  })

  it('2. Incremental Results', async () => {
    // The template string in it is escaped, since it stands within another.
    const snippet = `
// Save checkpoints during processing
for (let i = 0; i < data.length; i += 1000) {
  const chunk = processChunk(data.slice(i, i + 1000));
  await persistResult(JSON.stringify(chunk), {
    name: \`checkpoint-\${i}.json\`,
    metadata: { progress: i / data.length }
  });
}
`
    const before = `${REQUIRE}
const data = Array.from({ length: 2500 }, (_, i) => i)
const processChunk = (part) => ({ first: part[0], count: part.length })`
    await using worker = await startWorker()
    await worker.node(nodeScript(snippet, { before }))
    expect(await contents(await worker.finish())).toEqual({
      'checkpoint-0.json': ['{"first":0,"count":1000}', { progress: 0 }],
      'checkpoint-1000.json': ['{"first":1000,"count":1000}', { progress: 0.4 }],
      'checkpoint-2000.json': ['{"first":2000,"count":500}', { progress: 0.8 }],
    })
  })

  it('3. Multi-File Results', async () => {
    const files = { ...FILES, '/workspace/report.pdf': '%PDF-1.7\n', '/workspace/data.csv': 'a,b\n' }
    await using worker = await startWorker({ files })
    await worker.bash(`
# Organize results in a directory, then persist
mkdir -p /workspace/final-results
cp output.json final-results/
cp report.pdf final-results/
cp data.csv final-results/

# Automatically archives as .tar.gz
persist-result --name "final-results" /workspace/final-results
`)
    const [archive, ...more] = await worker.finish()
    expect(more).toEqual([])
    expect(archive?.name).toBe('final-results.tar.gz')
    expect(await readArchive((await archive?.bytes()) ?? new Uint8Array())).toEqual({
      'final-results/output.json': OUTPUT,
      'final-results/report.pdf': '%PDF-1.7\n',
      'final-results/data.csv': 'a,b\n',
    })
  })

  it('4. Error Recovery', async () => {
    const snippet = `
try {
  const result = await performTask();
  await persistResult(JSON.stringify(result), { name: 'success.json' });
} catch (error) {
  // Save error details before worker terminates
  await persistResult(JSON.stringify({
    error: error.message,
    stack: error.stack,
    timestamp: new Date().toISOString()
  }), { name: 'error.json' });
  throw error;
}
`
    const script = (body: string) =>
      nodeScript(snippet, { before: `${REQUIRE}\nasync function performTask() { ${body} }` })
    await using worker = await startWorker()
    await worker.node(script('return { pages: 3 }'))
    const failing = worker.node(script("throw new Error('out of paper')"))
    await expect(failing).rejects.toThrow(/^exit 1: Error: out of paper\n/)
    const { 'error.json': [failure] = [], ...others } = await contents(await worker.finish())
    expect(others).toEqual({ 'success.json': ['{"pages":3}', {}] })
    expect(JSON.parse(String(failure))).toEqual({
      error: 'out of paper',
      stack: expect.stringMatching(/^Error: out of paper\n +at performTask/),
      timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
    })
  })
})

describe('Retrieval', () => {
  it('From Local Storage', async () => {
    await using worker = await startLonelyWorker(SPOOLED)
    const { stdout } = await worker.bash(`
# List results
persist-result.js --list worker-123

# Retrieve a result
persist-result.js --retrieve worker-123/20260114-120000-output.json > output.json
`)
    expect(stdout).toBe(`${GUIDE_KEY}\n`)
    expect((await worker.bash('cat output.json')).stdout).toBe(GUIDE_RESULT)
  })

  it.skipIf(!HAS_AWS)('From S3, and the check of credentials and bucket access', async () => {
    // What lay only in the spool gets to S3 at the latest when the worker is terminated.
    await using worker = await startWorker({ files: SPOOLED, prefix: 'results' })
    await worker.finish()
    await using folder = await makeTempDir()
    const listing = await run(
      [
        'bash',
        '-ec',
        `
# Direct download
aws s3 cp s3://my-results-bucket/results/worker-123/20260114-120000-output.json output.json

# List all results for a task
aws s3 ls s3://my-results-bucket/results/worker-123/
`,
      ],
      { cwd: folder.path, env: awsEnvironment() },
    )
    expect(listing, listing.stderr).toMatchObject({ status: 0 })
    expect(await readFile(join(folder.path, 'output.json'), 'utf8')).toBe(GUIDE_RESULT)
    expect(listing.stdout).toMatch(/ 38 20260114-120000-output\.json\n/)

    const check = await run(
      [
        'bash',
        '-ec',
        `
aws s3 ls s3://my-results-bucket/
`,
      ],
      { cwd: folder.path, env: awsEnvironment() },
    )
    expect(check, check.stderr).toMatchObject({ status: 0, stdout: expect.stringContaining('PRE results/') })
  })
})

describe('Troubleshooting', () => {
  it('"S3 storage failed"', async () => {
    await using worker = await startLonelyWorker(FILES)
    const { stdout, stderr } = await worker.bash(
      `${configureS3({ secret: 'wrong' })}persist-result output.json`,
    )
    expect(stderr).toMatch(/^persist-result: S3 storage failed: .*SignatureDoesNotMatch/)
    // The result is stored nevertheless.
    expect((await worker.bash(`persist-result --retrieve ${stdout}`)).stdout).toBe(OUTPUT)
  })

  it('"HTTP storage failed", and the check of the endpoint', async () => {
    await using refusing = await startPlainEndpoint(403)
    await using endpoint = await startPlainEndpoint()
    await using worker = await startLonelyWorker({ ...FILES, '/workspace/test.txt': 'a test\n' })
    const { stderr } = await worker.bash(`${configureHttp(refusing.url)}persist-result output.json`)
    expect(stderr).toMatch(/^persist-result: HTTP storage failed: .*403/)

    await worker.bash(
      configureHttp(endpoint.url) +
        String.raw`
curl -X POST "$WORKER_RESULTS_ENDPOINT" \
  -F "file=@test.txt" \
  -F "key=test" \
  -F "task_id=test"
`,
    )
    expect(endpoint.forms).toEqual([{ file: 'a test\n', key: 'test', task_id: 'test' }])
  })

  it('"All storage methods failed", and the checks of disk and permissions', async () => {
    await using refusing = await startPlainEndpoint(403)
    await using worker = await startLonelyWorker(FILES)
    const failing = worker.bash(`
${configureS3({ secret: 'wrong' })}${configureHttp(refusing.url)}
export WORKER_RESULTS_LOCAL_DIR=/workspace/output.json
persist-result output.json`)
    await expect(failing).rejects.toThrow(/^exit 1: /)
    const said = await failing.catch(({ message }: Error) => message)
    expect(said).toMatch(
      /persist-result: All storage methods failed: local: .*; s3: .*SignatureDoesNotMatch.*; http: .*403.*\n$/,
    )

    expect((await worker.bash('df -h /workspace')).stdout).toMatch(/^Filesystem .*\n.*%/)
    expect((await worker.bash('ls -ld /workspace/.results')).stdout).toMatch(
      /^drwx.*\/workspace\/\.results\n$/,
    )
  })
})

describe('Integration with Stu (Conductor)', () => {
  const INTEGRATION = `
// In conductor.js
const workerEnv = {
  WORKER_RESULTS_S3_BUCKET: process.env.WORKER_RESULTS_S3_BUCKET,
  WORKER_RESULTS_S3_PREFIX: 'results',
  AWS_ACCESS_KEY_ID: process.env.AWS_ACCESS_KEY_ID,
  AWS_SECRET_ACCESS_KEY: process.env.AWS_SECRET_ACCESS_KEY,
  WORKER_ID: workerId,
};

// Pass to worker
const sandbox = await E2B.Sandbox.create({
  template: process.env.E2B_TEMPLATE_ID,
  envVars: workerEnv,
});
`
  const workerVariables = () => ({
    WORKER_RESULTS_S3_BUCKET: BUCKET,
    WORKER_RESULTS_S3_PREFIX: 'results',
    AWS_ACCESS_KEY_ID: stack.s3.credentials.accessKeyId,
    AWS_SECRET_ACCESS_KEY: stack.s3.credentials.secretAccessKey,
    WORKER_ID: TASK,
  })

  it("spawnWorker with access 'env' gives a worker these variables, and its results get to S3 by them", async () => {
    await using worker = await startWorker({ files: FILES, prefix: 'results', conductor: { access: 'env' } })
    const { stdout } = await worker.bash('env')
    expect(parseEnv(stdout)).toMatchObject(workerVariables())
    const stored = await worker.bash('persist-result --require s3 --name by-env output.json')
    const results = await worker.finish()
    expect(results.find(({ key }) => key === stored.stdout.trim())).toMatchObject({ tiers: ['s3'] })
  })

  it.each([
    // Word for word. The E2B SDK has no such option and ignores it.
    { option: 'envVars', gives: () => ({}) },
    { option: 'envs', gives: workerVariables },
  ])('the snippet with the option $option', async ({ option, gives }) => {
    const before = "const E2B = require('e2b')\nconst workerId = 'worker-123'"
    const after = "console.log((await sandbox.commands.run('env')).stdout)\nawait sandbox.kill()"
    const script = nodeScript(INTEGRATION.replace('envVars:', `${option}:`), { before, after })
    const ran = await run([process.execPath, '-'], {
      input: script,
      // Where `require` finds the E2B SDK.
      cwd: fileURLToPath(new URL('../..', import.meta.url)),
      env: { ...stack.env, E2B_TEMPLATE_ID: 'base' },
    })
    expect(ran, ran.stderr).toMatchObject({ status: 0 })
    const seen = parseEnv(ran.stdout)
    const given = Object.keys(workerVariables()).flatMap((name) =>
      seen[name] === undefined ? [] : [[name, seen[name]]],
    )
    expect(Object.fromEntries(given)).toEqual(gives())
  })
})
