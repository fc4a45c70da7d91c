import type { ResultRecord } from '../../../src/protocol/record.js'

/** A form as a persister sends it: fields first, in their order, then the file. */
export function formOf(
  fields: Readonly<Record<string, string>>,
  body: Uint8Array | string,
  type = '',
): FormData {
  const form = new FormData()
  for (const [name, value] of Object.entries(fields)) form.set(name, value)
  form.set('file', new Blob([body], { type }), 'file')
  return form
}

/** Posts a form. */
export function post(url: string, form: FormData, token?: string): Promise<Response> {
  return fetch(url, { method: 'POST', body: form, headers: bearer(token) })
}

/** Posts a result with everything that its record says. */
export function postRecord(
  url: string,
  record: ResultRecord,
  body: Uint8Array,
  token?: string,
): Promise<Response> {
  const fields = {
    key: record.key,
    task_id: record.task_id,
    metadata: JSON.stringify(record.metadata),
    sha256: record.sha256,
    created_at: record.created_at,
    ...(record.archive === null ? {} : { archive: record.archive }),
  }
  return post(url, formOf(fields, body, record.content_type), token)
}

/** The header that a token goes into. */
export function bearer(token: string | undefined): Record<string, string> {
  return token === undefined ? {} : { authorization: `Bearer ${token}` }
}
