import { runTool } from '../run-tool.js'

/** Absolute paths, the same outside and in a sandbox: the PATH of a command must not decide what is run on its way in. */
export interface Tools {
  readonly unshare: string
  readonly nsenter: string
  readonly timeout: string
}

/** Finds the programs that make and enter sandboxes; rejects when one is missing. */
export async function findTools(): Promise<Tools> {
  const find = async (name: string) => (await runTool('/bin/sh', ['-c', `command -v ${name}`])).trim()
  const [unshare, nsenter, timeout] = await Promise.all([find('unshare'), find('nsenter'), find('timeout')])
  return { unshare, nsenter, timeout }
}
