declare const PERSIST_RESULT_VERSION: string

/** The package's version; the bundler puts it in. */
export const VERSION: string = PERSIST_RESULT_VERSION
