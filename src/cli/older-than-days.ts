import { UsageError } from './usage-error.js'
import { wholeNumber } from './whole-number.js'

/** The age that `--older-than-days` names, which has to be said. */
export function olderThanDays(values: { readonly 'older-than-days'?: string | undefined }): number {
  const text = values['older-than-days']
  if (text === undefined) throw new UsageError('say --older-than-days N')
  return wholeNumber('--older-than-days', text, 0)
}
