import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/{unit,conformance,integration,e2e}/**/*.test.ts'],
    globalSetup: ['test/support/build.ts', 'test/support/s3/global-setup.ts'],
    testTimeout: 30_000,
    hookTimeout: 30_000,
    restoreMocks: true,
  },
})
