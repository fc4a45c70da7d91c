import { expect, it } from 'vitest'
import { egressRules } from '../../../src/grants/egress.js'

it.each([
  [
    'a store of its own, an endpoint and a broker',
    'tiers',
    {
      s3: { bucket: 'b', region: 'r', endpoint: 'https://s3.example:9000/x' },
      httpEndpoint: 'http://10.1.2.3/results',
      brokerUrl: 'https://s3.example/broker',
    },
    ['s3.example', '10.1.2.3'],
  ],
  [
    'AWS, and a mirror besides',
    ['pypi.org'],
    { s3: { bucket: 'b', region: 'eu-west-1', endpoint: undefined } },
    ['b.s3.eu-west-1.amazonaws.com', 's3.eu-west-1.amazonaws.com', 'b.s3.amazonaws.com', 'pypi.org'],
  ],
  ['nothing but the sandbox itself', 'tiers', { s3: undefined }, []],
] as const)('a sandbox is confined to %s', (_what, egress, tiers, allowOut) => {
  expect(egressRules(egress, tiers)).toEqual({ allowOut, denyOut: ['0.0.0.0/0'] })
})
