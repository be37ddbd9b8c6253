/**
 * Compiles the C++ core with its tests and runs them, once with AddressSanitizer and
 * UndefinedBehaviorSanitizer and once with ThreadSanitizer.
 *
 *     node scripts/test-native.mjs [--sanitizer=address|thread] [part of a test's name …]
 *
 * Everything in native/ but the addon itself is compiled, so the core proves to need no N-API.
 * Clients of a session under test are programs of test/programs, compiled without a sanitizer.
 * Objects are kept and compiled anew when something they include has changed.
 */
import { spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
} from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { basename, join } from "node:path";
import { ensurePrograms, root } from "./steps.mjs";

const cache = join(root, "node_modules", ".cache", "test-native");
const compiler = process.env.CXX ?? "g++";

const clients = ["device_fuzz", "device_intruder", "frame_producer", "frame_consumer"];

const commonFlags = [
  "-std=c++20",
  "-O1",
  "-g1", // Lines for the sanitizers' reports, and no more: a third faster.
  "-fno-omit-frame-pointer",
  "-Wall",
  "-Wextra",
  "-Werror",
  "-pthread",
  `-I${join(root, "native")}`,
];

const sanitizers = {
  address: {
    flags: ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    env: {
      ASAN_OPTIONS: "detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1",
      UBSAN_OPTIONS: "print_stacktrace=1",
    },
  },
  thread: {
    flags: ["-fsanitize=thread"],
    env: { TSAN_OPTIONS: "halt_on_error=1:second_deadlock_stack=1" },
  },
};

function sources(directory, keep) {
  return readdirSync(join(root, directory))
    .filter((name) => name.endsWith(".cc") && keep(name))
    .sort()
    .map((name) => join(root, directory, name));
}

function modified(path) {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Number.NaN;
}

/** The files that an object was made of, as the compiler's -MMD wrote them down. */
function ingredients(object) {
  try {
    const rule = readFileSync(object.replace(/\.o$/, ".d"), "utf8");
    return rule
      .slice(rule.indexOf(":") + 1)
      .split(/[\s\\]+/)
      .filter((word) => word !== "");
  } catch {
    return null;
  }
}

function isCurrent(object) {
  const made = modified(object);
  const files = ingredients(object);
  // A file that has gone has no time, and so compares false.
  return files?.every((file) => modified(file) < made) ?? false;
}

function run(command, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ["ignore", "inherit", "inherit"], ...options });
    child.on("error", reject);
    child.on("exit", (code, signal) => {
      if (code === 0) resolve();
      else reject(new Error(`${basename(command)} ended with ${signal ?? `exit code ${code}`}`));
    });
  });
}

async function compileAll(files, directory, flags, patience = 0) {
  const objects = files.map((file) => join(directory, `${basename(file, ".cc")}.o`));
  const waiting = files
    .map((file, index) => ({ file, object: objects[index] }))
    .filter(({ object }) => !isCurrent(object));
  const compile = async () => {
    for (let job = waiting.shift(); job !== undefined; job = waiting.shift()) {
      const words = [...commonFlags, ...flags, "-MMD", "-c", job.file, "-o", job.object];
      await run("nice", ["-n", String(patience), compiler, ...words]);
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, compile));
  return objects;
}

/** Returns the header to include before all others: it has been compiled. */
async function compileHeaders(directory, flags) {
  const source = join(root, "test/native/common_headers.h");
  const header = join(directory, "common_headers.h");
  const compiled = `${header}.gch`;
  if (modified(compiled) > modified(source)) return header;
  copyFileSync(source, header);
  const words = ["-x", "c++-header", header, "-o", compiled];
  await run(compiler, [...commonFlags, ...flags, ...words]);
  return header;
}

/** Returns the folder with the programs. */
async function compilePrograms() {
  const directory = join(cache, "programs");
  mkdirSync(directory, { recursive: true });
  const files = clients.map((name) => join(root, "test/programs", `${name}.cc`));
  const objects = await compileAll(files, directory, ["-O2", "-D_GNU_SOURCE"]);
  for (const object of objects) {
    const program = object.replace(/\.o$/, "");
    if (modified(program) > modified(object)) continue;
    await run(compiler, ["-pthread", object, "-o", program]);
  }
  return directory;
}

/** A sanitizer's report ends the process at once: what that leaves mounted is detached here. */
function clear(folder) {
  const left = readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[4] ?? "")
    .filter((path) => path.startsWith(`${folder}/`));
  for (const path of left) spawnSync("umount", ["-l", path]);
  rmSync(folder, { recursive: true, force: true });
}

async function main() {
  const args = process.argv.slice(2);
  const chosen = args.find((arg) => arg.startsWith("--sanitizer="))?.slice("--sanitizer=".length);
  if (chosen !== undefined && !(chosen in sanitizers)) {
    throw new Error(`unknown sanitizer '${chosen}': address or thread`);
  }
  ensurePrograms({ "g++": "g++", fusermount3: "fuse3" });
  const names = args.filter((arg) => !arg.startsWith("--"));
  const files = [
    ...sources("native", (name) => !name.startsWith("addon")),
    ...sources("test/native", () => true),
  ];
  const programs = await compilePrograms();
  const build = async (name, patience) => {
    const { flags } = sanitizers[name];
    const directory = join(cache, name);
    mkdirSync(directory, { recursive: true });
    const headers = await compileHeaders(directory, flags);
    const objects = await compileAll(files, directory, [...flags, "-include", headers], patience);
    const program = join(directory, "test-native");
    await run(compiler, [...flags, "-pthread", ...objects, "-o", program]);
    return program;
  };
  const wanted = Object.keys(sanitizers).filter((name) => (chosen ?? name) === name);
  let next = build(wanted[0], 0);
  for (const [index, name] of wanted.entries()) {
    const program = await next;
    const { env } = sanitizers[name];
    // The next is compiled beside the tests of this one, which mostly wait, and behind them.
    const following = wanted[index + 1];
    if (following !== undefined) next = build(following, 10);
    // If the tests fail first, it is they that are told of.
    next.catch(() => {});
    console.log(`test:native with the ${name} sanitizer`);
    const temporary = mkdtempSync(join(realpathSync(tmpdir()), "test-native-"));
    chmodSync(temporary, 0o755);
    const more = { TMPDIR: temporary, LOOPBACK_TEST_PROGRAMS: programs };
    try {
      await run(program, names, { env: { ...process.env, ...env, ...more }, cwd: root });
    } finally {
      clear(temporary);
    }
  }
}

main().catch((error) => {
  console.error(`test:native: ${error.message}`);
  process.exitCode = 1;
});
