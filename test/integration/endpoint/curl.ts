import { execFile } from 'node:child_process'

/** What curl got. */
export interface CurlAnswer {
  /** Exit status of curl itself. */
  readonly code: number
  /** 0 when there was no answer. */
  readonly status: number
  /** Names in lower case. */
  readonly headers: ReadonlyMap<string, string>
  readonly body: string
}

/** Runs curl as a user would, with the answer's headers kept. */
export function curl(...args: readonly string[]): Promise<CurlAnswer> {
  return new Promise((resolve) => {
    execFile(
      'curl',
      ['-sS', '-i', '--max-time', '20', ...args],
      { encoding: 'latin1', maxBuffer: 1 << 26 },
      (error, out) => {
        // Interim answers such as 100 Continue come first.
        const whole = out.replace(/^(HTTP\/1\.1 1\d\d [^\r]*\r\n\r\n)+/, '')
        const end = whole.indexOf('\r\n\r\n')
        const [first = '', ...lines] = whole.slice(0, end).split('\r\n')
        resolve({
          code: error === null ? 0 : Number(error.code),
          status: Number(first.split(' ')[1] ?? 0),
          headers: new Map(
            lines.map((line) => {
              const colon = line.indexOf(':')
              return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()]
            }),
          ),
          body: Buffer.from(whole.slice(end + 4), 'latin1').toString('utf8'),
        })
      },
    )
  })
}
