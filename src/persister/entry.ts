import { flush, listResults, persistResult, retrieveResult } from './api.js'

export { flush, listResults, persistResult, retrieveResult }

// Bundled to CommonJS, where these two say whether the file is the program or was required by one.
if (require.main === module) {
  void import('./cli/main.js').then(({ main }) => main())
}
