import type { ExitStatus } from '../jail/jail.js'

/** `process.ProcessEvent.EndEvent` of envd's protocol. */
export interface EndEvent {
  readonly exitCode: number
  readonly exited: boolean
  readonly status: string
  readonly error?: string
}

/** Go's words for signals, which is what envd sends. */
const SIGNAL_WORDS: Partial<Record<NodeJS.Signals, string>> = {
  SIGHUP: 'hangup',
  SIGINT: 'interrupt',
  SIGQUIT: 'quit',
  SIGILL: 'illegal instruction',
  SIGTRAP: 'trace/breakpoint trap',
  SIGABRT: 'aborted',
  SIGBUS: 'bus error',
  SIGFPE: 'floating point exception',
  SIGKILL: 'killed',
  SIGUSR1: 'user defined signal 1',
  SIGSEGV: 'segmentation fault',
  SIGUSR2: 'user defined signal 2',
  SIGPIPE: 'broken pipe',
  SIGALRM: 'alarm clock',
  SIGTERM: 'terminated',
}

/** How envd reports an end: a process that a signal ended has the exit code -1. */
export function toEndEvent({ exitCode, signal }: ExitStatus): EndEvent {
  if (signal !== null) {
    const status = `signal: ${SIGNAL_WORDS[signal] ?? signal}`
    return { exitCode: -1, exited: false, status, error: status }
  }
  const status = `exit status ${exitCode}`
  return { exitCode: exitCode ?? 0, exited: true, status, ...(exitCode === 0 ? {} : { error: status }) }
}
