// The whole of stu-conductor in one go: workers in sandboxes, what they left, and somebody else reading it all back.
import { randomBytes } from 'node:crypto'
import { startLocalStack } from 'stu-conductor/local'
import { countSandboxes, makeChecks } from './checks.js'
import { paint } from './format.js'
import { assertLiveEnv, HELP, parseOptions, UsageError } from './options.js'
import { Progress } from './progress.js'
import { readBack } from './read-back.js'
import { brokenOff, formatReport, isAllTrue, toJson } from './report.js'
import { runWorkers } from './run-workers.js'
import { loadWorkers } from './workers.js'

// For those who maintain this project, not for those who watch the demo.
process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= 'true'

process.exitCode = await main(process.argv.slice(2))

/** @param {readonly string[]} words */
async function main(words) {
  try {
    const options = parseOptions(words)
    if (options.live) assertLiveEnv(process.env)
    if (!options.help) return await runUntilSignalled(options)
    process.stdout.write(HELP)
    return 0
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    process.stderr.write(`demo: ${error.message}\n`)
    return 2
  }
}

/** @param {import('./options.js').DemoOptions} options */
async function runUntilSignalled(options) {
  const stop = new AbortController()
  let exitCode = 0
  const onSignal = (/** @type {NodeJS.Signals} */ name) => {
    exitCode = name === 'SIGINT' ? 130 : 143
    process.stderr.write(`\n${name}: cleaning up\n`)
    stop.abort(new Error(`stopped by ${name}`))
  }
  // Once each: a second Ctrl-C ends the process at once.
  process.once('SIGINT', onSignal).once('SIGTERM', onSignal)
  const report = await runDemo(options, stop.signal).catch((error) => {
    const line = describeError(error)
    if (!stop.signal.aborted) process.stderr.write(`demo: ${line}\n`)
    return brokenOff(line)
  })
  process.off('SIGINT', onSignal).off('SIGTERM', onSignal)
  if (options.json) process.stdout.write(`${toJson(report)}\n`)
  return exitCode || (isAllTrue(report) ? 0 : 1)
}

/**
 * @param {import('./options.js').DemoOptions} options
 * @param {AbortSignal} signal
 */
async function runDemo({ json, live, isolation }, signal) {
  const started = performance.now()
  const out = json ? process.stderr : process.stdout
  const style = paint(out)
  const stack = live ? undefined : await startLocalStack({ isolation })
  try {
    const env = stack?.env ?? process.env
    const runId = `demo-${randomBytes(3).toString('hex')}`
    const workers = await loadWorkers()
    out.write(`${style('bold', describePlace(stack))}\n\n${introduce(workers)}\n\n`)
    const progress = new Progress(out, workers)
    let sandboxesWhileRunning = 0
    const receipts = await runWorkers({
      runId,
      env,
      workers,
      progress,
      onAllRunning: async () => {
        sandboxesWhileRunning = await countSandboxes(env, runId)
      },
      signal,
    })
    progress.end()
    const found = await readBack(env, receipts, signal)
    const checks = await makeChecks({ runId, env, workers, receipts, found, sandboxesWhileRunning })
    const report = { receipts, found, checks }

    const heading = 'All terminated. What they left, read back by a conductor that never saw them:'
    out.write(`\n${style('bold', heading)}\n\n${formatReport(report, style, out.columns)}\n`)
    const seconds = ((performance.now() - started) / 1000).toFixed(1)
    out.write(
      isAllTrue(report)
        ? `${style('green', 'Everything was listed, fetched and verified.')} ${seconds} s\n`
        : `${style('red', 'Not everything is as it should be, see ✗ above.')} ${seconds} s\n`,
    )
    return report
  } finally {
    await stack?.close()
  }
}

/** @param {import('stu-conductor/local').LocalStack | undefined} stack */
function describePlace(stack) {
  return stack === undefined
    ? 'Workers in E2B, results in S3'
    : `Workers in a local E2B (${stack.e2b.isolation}), results in a local S3, all on this machine`
}

/** @param {readonly import('./workers.js').DemoWorker[]} workers */
function introduce(workers) {
  const width = Math.max(...workers.map(({ name }) => name.length))
  return workers.map(({ name, does }) => `  ${name.padEnd(width)}  ${does}`).join('\n')
}

/** @param {unknown} error */
function describeError(error) {
  if (!(error instanceof Error)) return String(error)
  const code = 'code' in error ? ` [${error.code}]` : ''
  return `${error.message}${code}`
}
