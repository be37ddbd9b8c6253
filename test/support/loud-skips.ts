/** Says at the end what was skipped, and fails CI for it; and the plain line with the counts. */
import type { Reporter, TestModule } from "vitest/node";

export default class LoudSkips implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const tests = modules.flatMap((module) => [...module.children.allTests()]);
    const count = (state: string) => tests.filter((test) => test.result().state === state);
    const skipped = count("skipped");
    for (const test of skipped) {
      process.stdout.write(`SKIPPED: ${test.module.moduleId}: ${test.fullName}\n`);
    }
    const passed = count("passed").length;
    const failed = count("failed").length;
    process.stdout.write(`\n${passed} passed, ${failed} failed, ${skipped.length} skipped\n`);
    if (skipped.length > 0 && process.env.CI) {
      process.stdout.write("A skipped test fails CI.\n");
      process.exitCode = 1;
    }
  }
}
