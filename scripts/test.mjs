// `npm test [-- files]`: everything that the tests need, and the tests.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { ensureBuilt, ensurePrograms, fail, root } from "./steps.mjs";

ensureBuilt();
ensurePrograms({
  "g++": "g++",
  ffmpeg: "ffmpeg",
  "v4l2-ctl": "v4l-utils",
  fusermount3: "fuse3",
  script: "bsdutils",
  watch: "procps",
});
if (!existsSync("/dev/fuse")) fail("there is no /dev/fuse here: the tests mount for real");

const vitest = spawn(
  process.execPath,
  [join(root, "node_modules/vitest/vitest.mjs"), "run", ...process.argv.slice(2)],
  { cwd: root, stdio: "inherit" },
);
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => vitest.kill(signal));
vitest.on("exit", (code) => process.exit(code ?? 1));
