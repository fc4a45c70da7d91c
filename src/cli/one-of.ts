import { UsageError } from './usage-error.js'

/** An option's value as one of those that it takes; undefined when it is not given. */
export function oneOf<T extends string>(
  option: string,
  words: readonly T[],
  text: string | undefined,
): T | undefined {
  if (text === undefined) return undefined
  const word = words.find((candidate) => candidate === text)
  if (word !== undefined) return word
  const last = words.at(-1)
  const said = `${words.slice(0, -1).join(', ')} or ${last}`
  throw new UsageError(`${option} takes ${said} (got ${JSON.stringify(text)})`)
}
