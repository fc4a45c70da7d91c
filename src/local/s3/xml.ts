import { XMLParser, XMLValidator } from 'fast-xml-parser'
import { S3Error } from './errors.js'

/** One element: its name, and its text or its children; an absent value leaves the element out. */
export type XmlElement = readonly [
  name: string,
  content: string | number | boolean | readonly XmlElement[] | undefined,
]

const namespace = 'http://s3.amazonaws.com/doc/2006-03-01/'
const parser = new XMLParser({
  parseTagValue: false,
  trimValues: false,
  htmlEntities: true,
  ignoreDeclaration: true,
  isArray: (name) => name === 'Object' || name === 'Part' || name === 'Tag',
})

/** Renders a response document in S3's namespace. */
export function renderXml(root: string, content: string | readonly XmlElement[]): string {
  return `<?xml version="1.0" encoding="UTF-8"?>\n<${root} xmlns="${namespace}">${render(content)}</${root}>`
}

/** Renders an error document, which S3 sends without a namespace. */
export function renderErrorXml(children: readonly XmlElement[]): string {
  return `<?xml version="1.0" encoding="UTF-8"?>\n<Error>${renderAll(children)}</Error>`
}

/**
 * Parses a request document and returns what is inside `root`; text stays text.
 * Throws `MalformedXML` for anything else.
 */
export function parseXml(text: string, root: string): Record<string, unknown> {
  // Entities of a DOCTYPE are of no use to S3 and of some use to an attacker.
  if (text.includes('<!DOCTYPE') || XMLValidator.validate(text) !== true) throw new S3Error('MalformedXML')
  const document: unknown = parser.parse(text)
  const content = asRecord(document)?.[root]
  const record = content === '' ? {} : asRecord(content)
  if (record === undefined) throw new S3Error('MalformedXML')
  return record
}

/** Narrows a parsed value to an element with children. */
export function asRecord(value: unknown): Record<string, unknown> | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : undefined
}

function renderAll(elements: readonly XmlElement[]): string {
  let xml = ''
  for (const [name, content] of elements) {
    if (content === undefined) continue
    xml += `<${name}>${render(content)}</${name}>`
  }
  return xml
}

function render(content: Exclude<XmlElement[1], undefined>): string {
  return typeof content === 'object' ? renderAll(content) : escapeText(String(content))
}

function escapeText(text: string): string {
  // Control characters are not XML 1.0; S3 sends them as references all the same, and clients that list
  // such keys ask for `encoding-type=url`.
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is escaped
  return text.replace(/[&<>"\u0000-\u001f\u007f]/g, (character) => {
    const name = { '&': 'amp', '<': 'lt', '>': 'gt', '"': 'quot' }[character]
    return name === undefined ? `&#${character.charCodeAt(0)};` : `&${name};`
  })
}
