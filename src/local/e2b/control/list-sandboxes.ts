import type { z } from 'zod'
import { RequestError } from '../request-error.js'
import type { Sandbox } from '../sandbox/sandbox.js'
import type { listQuery } from './schemas.js'

/** One page, and how to ask for the next. */
export interface SandboxPage {
  readonly sandboxes: readonly Sandbox[]
  readonly nextToken: string | undefined
}

/** Selects, sorts by start and cuts into pages. A page's token names its last sandbox, so pages stay stable as others come and go. */
export function listSandboxes(all: readonly Sandbox[], query: z.output<typeof listQuery>): SandboxPage {
  const states = query.state.split(',')
  const wanted = parseMetadata(query.metadata)
  const after = query.startedAfter === undefined ? undefined : new Date(query.startedAfter)
  const direction = query.order === 'asc' ? 1 : -1
  const last = query.nextToken === undefined ? undefined : parseToken(query.nextToken)
  const rest = all
    .filter(({ state }) => states.includes(state))
    .filter(({ config }) => query.template === undefined || config.templateId === query.template)
    .filter(({ startedAt }) => after === undefined || startedAt >= after)
    .filter(({ config }) => wanted.every(([name, value]) => config.metadata[name] === value))
    .map((sandbox) => ({ sandbox, position: positionOf(sandbox) }))
    .sort((a, b) => direction * comparePositions(a.position, b.position))
    .filter(({ position }) => last === undefined || direction * comparePositions(position, last) > 0)
  const page = rest.slice(0, query.limit)
  const end = page.at(-1)
  return {
    sandboxes: page.map(({ sandbox }) => sandbox),
    nextToken: end !== undefined && rest.length > page.length ? formatToken(end.position) : undefined,
  }
}

/** Place in the order: by start, and by id among those that started together. */
type Position = readonly [startedAtMs: number, id: string]

function positionOf({ startedAt, config }: Sandbox): Position {
  return [startedAt.getTime(), config.id]
}

function comparePositions([timeA, idA]: Position, [timeB, idB]: Position): number {
  if (timeA !== timeB) return timeA - timeB
  if (idA === idB) return 0
  return idA < idB ? -1 : 1
}

function formatToken([time, id]: Position): string {
  return Buffer.from(`${time}.${id}`).toString('base64url')
}

function parseToken(token: string): Position {
  const match = /^(\d+)\.(\w+)$/.exec(Buffer.from(token, 'base64url').toString('utf8'))
  if (match === null) throw new RequestError('invalid_argument', 'invalid nextToken')
  return [Number(match[1]), match[2] as string]
}

/** The SDK encodes each part on its own, then the pairs as a query, then that as a parameter. The last is undone already. */
function parseMetadata(text: string | undefined): [string, string][] {
  if (text === undefined) return []
  try {
    return [...new URLSearchParams(text)].map(([name, value]) => [
      decodeURIComponent(name),
      decodeURIComponent(value),
    ])
  } catch (error) {
    throw new RequestError('invalid_argument', 'invalid metadata filter', { cause: error })
  }
}
