// `npm run lint [-- --fix]`: formatting and rules of all sources, and the types of the tests.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { ensurePackages, ensurePrograms, root } from "./steps.mjs";

const fix = process.argv.includes("--fix");
ensurePackages();
ensurePrograms({ "clang-format": "clang-format" });

function sources(folder) {
  if (!existsSync(join(root, folder))) return [];
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return entry.name === "build" ? [] : sources(path);
    return /\.(cc|h)$/.test(entry.name) ? [path] : [];
  });
}

const node = process.execPath;
const steps = [
  [
    node,
    join(root, "node_modules/@biomejs/biome/bin/biome"),
    "check",
    "--error-on-warnings",
    ...(fix ? ["--write"] : []),
  ],
  [node, join(root, "node_modules/typescript/bin/tsc"), "--noEmit", "-p", "tsconfig.test.json"],
  [
    "clang-format",
    ...(fix ? ["-i"] : ["--dry-run", "-Werror"]),
    ...["native", "test", "bench"].flatMap(sources),
  ],
];

let failed = false;
for (const [command, ...args] of steps) {
  const done = spawnSync(command, args, { cwd: root, stdio: ["ignore", "inherit", "inherit"] });
  if (done.status !== 0) failed = true;
}
process.exit(failed ? 1 : 0);
