// `npm run bench [-- [--quick] [--against=COMMIT] [--nice=N] NAME …]`: everything that the benchmarks need, and the benchmarks.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { ensureBuilt, ensurePrograms, fail, hashOf, root, say, unlessStamped } from "./steps.mjs";

const words = process.argv.slice(2);
const names = words.filter((word) => !word.startsWith("--"));
ensureBuilt();
ensurePrograms({
  "g++": "g++",
  ...(names.length === 0 || names.includes("1p1c-instructions") ? { valgrind: "valgrind" } : {}),
});
if (!existsSync("/dev/fuse")) fail("there is no /dev/fuse here: the benchmarks mount for real");

// As the addon is compiled.
const flags = ["-std=gnu++20", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-restrict"];
const folder = join(root, "build/bench-programs");

function compile(name, others) {
  const sources = [join("bench/programs", `${name}.cc`), ...others];
  const folders = ["bench/programs", "test/programs", ...(others.length > 0 ? ["native"] : [])];
  const value = hashOf(
    folders,
    (file) => file.endsWith(".h") || sources.some((source) => source.endsWith(`/${file}`)),
    flags.join(" "),
  );
  const program = join(folder, name);
  unlessStamped(`${program}.stamp`, value, () => {
    say(`compiling ${name} …`);
    mkdirSync(folder, { recursive: true });
    const done = spawnSync("g++", [...flags, "-pthread", ...sources, "-o", program], {
      cwd: root,
      stdio: ["ignore", "inherit", "inherit"],
    });
    if (done.status !== 0) fail(`${name} can't be compiled`);
  });
}

/** The parts of the product that a program is compiled with. */
const parts = {
  ring_bench: readdirSync(join(root, "native"))
    .filter((name) => /^(ring|slots|memory|housekeeper).*\.cc$/.test(name))
    .map((name) => join("native", name)),
  transport: ["fuse_mount.cc", "reply_pipe.cc"].map((name) => join("native", name)),
};
for (const file of readdirSync(join(root, "bench/programs"))) {
  if (!file.endsWith(".cc")) continue;
  const name = file.slice(0, -3);
  compile(name, parts[name] ?? []);
}

/** Another commit's tree, built; what it is measured with is this tree's. */
function previous(commit) {
  const git = (...words) => spawnSync("git", words, { cwd: root, encoding: "utf8" });
  const found = git("rev-parse", "--verify", "--quiet", `${commit}^{commit}`);
  if (found.status !== 0) fail(`there is no commit ${commit} here`);
  const tree = join(root, "build/previous", found.stdout.trim().slice(0, 12));
  if (!existsSync(tree)) {
    git("clone", "--quiet", root, tree);
    git("-C", tree, "checkout", "--quiet", found.stdout.trim());
  }
  say(`building ${commit} in ${tree} …`);
  const built = spawnSync("npm", ["run", "build"], { cwd: tree, stdio: "inherit" });
  if (built.status !== 0) fail(`${commit} can't be built`);
  return {
    LOOPBACK_PREVIOUS_COMMIT: found.stdout.trim().slice(0, 7),
    LOOPBACK_PREVIOUS_CLI: join(tree, "dist/cli/main.js"),
  };
}
const against = words.find((word) => word.startsWith("--against="))?.slice("--against=".length);

const bench = spawn(
  process.execPath,
  [join(root, "node_modules/vite-node/vite-node.mjs"), "bench/run.ts", ...words],
  // A session of its own where it wants a priority of its own.
  {
    cwd: root,
    env: { ...process.env, ...(against === undefined ? {} : previous(against)) },
    stdio: "inherit",
    detached: words.some((word) => word.startsWith("--nice")),
  },
);
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => bench.kill(signal));
bench.on("exit", (code) => process.exit(code ?? 1));
