import { UsageError } from './usage-error.js'

/** An option's value as a whole number. */
export function wholeNumber(option: string, text: string, least: number): number {
  const value = Number(text)
  if (!/^\d{1,12}$/.test(text) || value < least) {
    throw new UsageError(`${option} takes a whole number from ${least} (got ${JSON.stringify(text)})`)
  }
  return value
}
