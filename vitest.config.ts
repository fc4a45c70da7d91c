import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/{unit,conformance,integration,e2e}/**/*.test.ts'],
    globalSetup: [
      'test/support/build.ts',
      'test/support/busybox-tools.ts',
      'test/support/s3/global-setup.ts',
    ],
    // Most tests wait for other processes: four at a time keep two cores busy.
    maxWorkers: 4,
    // Loading the SDKs anew for each file would take a quarter of the time; no suite leaves anything behind in its process.
    isolate: false,
    testTimeout: 120_000,
    hookTimeout: 120_000,
    restoreMocks: true,
  },
})
