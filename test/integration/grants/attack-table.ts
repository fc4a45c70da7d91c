import { createHash } from 'node:crypto'
import { request as httpRequest } from 'node:http'
import { GetObjectCommand, ListObjectsV2Command, PutObjectCommand } from '@aws-sdk/client-s3'
import { expect } from 'vitest'
import type { SignedRequest } from '../../../src/protocol/broker.js'
import type { ResultRecord } from '../../../src/protocol/record.js'
import type { S3Location } from '../../../src/stores/s3/s3-location.js'

/** What a server said to an attempt. */
export interface Outcome {
  readonly status: number
  readonly code: string
}

/** One attempt to get beyond a grant. */
export interface Attempt {
  readonly what: string
  /** Makes it and says how it was answered. */
  readonly make: () => Promise<Outcome>
  /** Present where the store cannot refuse it: what keeps it harmless instead. */
  readonly instead?: string
}

const rows: string[][] = []

/** Adds a line to the table. */
export function note(server: string, means: string, what: string, outcome: string): void {
  rows.push([server, means, what, outcome])
}

/** The table of all attempts so far, as text. */
export function table(): string {
  const all = [['server', 'means', 'attempt', 'answer'], ...rows]
  const widths = [0, 1, 2].map((column) => Math.max(...all.map((row) => (row[column] ?? '').length)))
  return all
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

/** Makes an attempt; whatever is said to it, nothing outside the task's own prefix may have changed. */
export async function attack(
  { server, at, means, own }: { server: string; at: S3Location; means: string; own: string },
  { what, make, instead }: Attempt,
): Promise<void> {
  const before = await contents(at)
  const outcome = await make()
  const after = await contents(at)
  const said = `${outcome.status} ${outcome.code}`.trim()
  note(server, means, what, instead === undefined ? said : `${said}: ${instead}`)
  if (instead === undefined) {
    expect(outcome.status, what).toBeGreaterThanOrEqual(400)
    // 501: the store does not even know the operation.
    expect(outcome.status === 501 || outcome.status < 500, what).toBe(true)
    expect(after, what).toEqual(before)
  }
  const outside = (all: Record<string, string>): [string, string][] =>
    Object.entries(all).filter(([key]) => !key.startsWith(`results/${own}/`))
  expect(outside(after), what).toEqual(outside(before))
}

/** Sends exactly this: fetch would tidy the path. */
export function send(
  { method, url, headers }: SignedRequest,
  body: string | Buffer = '',
  path?: string,
  { measured = true }: { readonly measured?: boolean } = {},
): Promise<Outcome> {
  const { hostname, port, pathname, search } = new URL(url)
  return new Promise((resolve, reject) => {
    const request = httpRequest({
      method,
      hostname,
      port,
      path: path ?? `${pathname}${search}`,
      headers: { ...headers, ...(measured ? { 'content-length': String(Buffer.byteLength(body)) } : {}) },
    })
    request.once('error', reject)
    request.once('response', (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk
      })
      response.once('end', () => {
        resolve({ status: response.statusCode ?? 0, code: /<Code>([^<]*)</.exec(text)?.[1] ?? '' })
      })
    })
    request.end(body)
  })
}

/** How a plain request was answered. */
export async function outcomeOf(answer: Response): Promise<Outcome> {
  const text = await answer.text()
  return { status: answer.status, code: /<Code>([^<]*)<\/Code>/.exec(text)?.[1] ?? '' }
}

/** How an SDK call was answered. */
export async function outcomeOfCall(call: Promise<unknown>): Promise<Outcome> {
  try {
    await call
    return { status: 200, code: '' }
  } catch (error) {
    const { name, $metadata } = error as Error & { $metadata?: { httpStatusCode?: number } }
    return { status: $metadata?.httpStatusCode ?? 0, code: name }
  }
}

/** Every object of the bucket with what identifies its content: what an attempt must leave as it was. */
export async function contents(at: S3Location): Promise<Record<string, string>> {
  const found: Record<string, string> = {}
  const page = await at.client.send(new ListObjectsV2Command({ Bucket: at.bucket }))
  for (const { Key = '', ETag = '', Size = 0 } of page.Contents ?? []) found[Key] = `${ETag} ${Size}`
  return found
}

/** A result's record, and its body in the bucket if wanted. */
export function recordOf(taskId: string, name: string, body: string): ResultRecord {
  const timestamp = '20260114-120000'
  return {
    v: 1,
    task_id: taskId,
    timestamp,
    name,
    key: `${taskId}/${timestamp}-${name}`,
    size: Buffer.byteLength(body),
    sha256: createHash('sha256').update(body).digest('hex'),
    content_type: 'text/plain',
    metadata: { n: 1 },
    created_at: '2026-01-14T12:00:00.000Z',
    archive: null,
    stored: [],
    errors: {},
  }
}

/** Puts an object into the bucket with the owner's rights. */
export async function plant(at: S3Location, Key: string, Body: string): Promise<void> {
  await at.client.send(new PutObjectCommand({ Bucket: at.bucket, Key, Body }))
}

/** The text of an object. */
export async function textOf(at: S3Location, Key: string): Promise<string> {
  const { Body } = await at.client.send(new GetObjectCommand({ Bucket: at.bucket, Key }))
  return (await Body?.transformToString()) ?? ''
}
