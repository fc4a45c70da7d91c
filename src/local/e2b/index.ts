export { type LocalE2b, type LocalE2bOptions, startLocalE2b } from './local-e2b.js'
