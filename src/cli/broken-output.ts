/**
 * Keeps a command going whose output nobody takes any more, as of `… | head`: what it has begun, a worker perhaps, is to be ended
 * as it should be. Output that is lost in any other way, such as to a full disk, makes it fail in the end.
 */
export function surviveBrokenOutput(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', ({ code }: NodeJS.ErrnoException) => {
      if (code === 'EPIPE' || code === 'ECONNRESET') return
      if (stream === process.stdout) process.stderr.write(`stu-conductor: cannot write the output: ${code}\n`)
      process.once('exit', () => {
        process.exitCode = process.exitCode || 1
      })
    })
  }
}
