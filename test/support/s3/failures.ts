/** What a refused request said. */
export interface Refusal {
  readonly status: number
  /** The `<Code>` of the XML body, or the SDK's name for the error. */
  readonly code: string
  readonly message: string
}

/** Waits for an SDK call to be refused and returns how; throws when it is not. */
export async function refusalOf(call: Promise<unknown>): Promise<Refusal> {
  try {
    await call
  } catch (error) {
    const { name, message, $metadata } = error as Error & { $metadata?: { httpStatusCode?: number } }
    return { status: $metadata?.httpStatusCode ?? 0, code: name, message }
  }
  throw new Error('the call was expected to be refused, and was not')
}

/** Reads how a plain HTTP request was refused; throws when it was not. */
export async function refusalIn(response: Response): Promise<Refusal> {
  const text = await response.text()
  if (response.ok) throw new Error(`the request was expected to be refused, and got ${response.status}`)
  const element = (name: string) => new RegExp(`<${name}>([^<]*)</${name}>`).exec(text)?.[1] ?? ''
  return { status: response.status, code: element('Code'), message: element('Message') }
}
