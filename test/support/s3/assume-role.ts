import aws4 from 'aws4'
import type { S3Endpoint } from './client.js'
import type { S3Server } from './servers.js'

/** Asks a server's STS for a session that a policy narrows. Throws with the answer when it is refused. */
export async function assumeRole(
  server: S3Server,
  policy: object,
): Promise<Required<S3Endpoint['credentials']>> {
  if (server.roleArn === undefined) throw new Error(`${server.name} has no STS`)
  const body = new URLSearchParams({
    Action: 'AssumeRole',
    Version: '2011-06-15',
    RoleArn: server.roleArn,
    RoleSessionName: 'test',
    DurationSeconds: '900',
    Policy: JSON.stringify(policy),
  }).toString()
  const { host } = new URL(server.url)
  const { headers } = aws4.sign(
    {
      host,
      path: '/',
      method: 'POST',
      service: 'sts',
      region: server.region,
      body,
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
    },
    server.credentials,
  )
  const { Host: _, 'Content-Length': __, ...sendable } = headers as Record<string, string>
  const response = await fetch(server.url, { method: 'POST', body, headers: sendable })
  const text = await response.text()
  const element = (name: string) => {
    const value = new RegExp(`<${name}>([^<]+)</${name}>`).exec(text)?.[1]
    if (!response.ok || value === undefined) throw new Error(`AssumeRole: ${response.status} ${text}`)
    return value
  }
  return {
    accessKeyId: element('AccessKeyId'),
    secretAccessKey: element('SecretAccessKey'),
    sessionToken: element('SessionToken'),
  }
}
