/** What Windows takes in a path for something else than a part of a file's name, and the sign that stands for each. */
const UNSAFE_ON_WINDOWS = /[<>:"|?*\\%]|[. ]$/g

/**
 * The name that a result's file gets on this machine: on Windows, percent-encoded where it would otherwise lead out of its folder,
 * name a stream of another file, or lose its end. No reserved name needs that, since a timestamp comes first.
 * https://learn.microsoft.com/windows/win32/fileio/naming-a-file
 */
export function localName(fileName: string, platform: NodeJS.Platform = process.platform): string {
  if (platform !== 'win32') return fileName
  return fileName.replace(UNSAFE_ON_WINDOWS, encode)
}

function encode(sign: string): string {
  return `%${sign.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`
}
