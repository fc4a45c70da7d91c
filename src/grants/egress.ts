import type { S3Location } from '../stores/s3/s3-location.js'

/** Where a sandbox may connect to: `tiers` is what its results need and nothing else, a list is that and these hosts, addresses or ranges. */
export type Egress = 'tiers' | readonly string[]

/** E2B's rules for outgoing traffic: https://e2b.dev/docs/sandbox/internet-access */
export interface EgressRules {
  readonly allowOut: readonly string[]
  readonly denyOut: readonly string[]
}

const EVERYTHING = '0.0.0.0/0'

/** The rules that confine a sandbox to its own tiers; the conductor's connection to it comes from outside and is not concerned. */
export function egressRules(
  egress: Egress,
  tiers: {
    readonly s3: Pick<S3Location, 'bucket' | 'endpoint' | 'region'> | undefined
    readonly httpEndpoint?: string | undefined
    readonly brokerUrl?: string | undefined
  },
): EgressRules {
  const { s3, httpEndpoint, brokerUrl } = tiers
  const urls = [s3?.endpoint, httpEndpoint, brokerUrl].filter((url) => url !== undefined)
  const hosts = urls.map((url) => new URL(url).hostname.replace(/^\[|\]$/g, ''))
  if (s3 !== undefined && s3.endpoint === undefined) hosts.push(...awsHosts(s3))
  return {
    allowOut: [...new Set([...hosts, ...(egress === 'tiers' ? [] : egress)])],
    denyOut: [EVERYTHING],
  }
}

/** A bucket's hosts at AWS: its own, the region's where its name does not fit TLS, and the global one that forms are sent to. */
function awsHosts({ bucket, region }: { readonly bucket: string; readonly region: string }): string[] {
  const domain = region.startsWith('cn-') ? 'amazonaws.com.cn' : 'amazonaws.com'
  const regional = `s3.${region}.${domain}`
  return [`${bucket}.${regional}`, regional, `${bucket}.s3.${domain}`]
}
