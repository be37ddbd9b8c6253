// What a script needs before it can do its work: each step looks first, and is quick when nothing
// changed. Node's own modules only, since node_modules may be missing.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
const nodeVersion = Number(process.versions.node.split(".")[0]);

/** Ends the script with one sentence. */
export function fail(sentence) {
  process.stderr.write(`v4l2loopback-fuse: ${sentence}\n`);
  process.exit(1);
}

export function say(sentence) {
  process.stderr.write(`${sentence}\n`);
}

/** Runs a command; its output is shown only where it fails. */
function run(command, args, options = {}) {
  const done = spawnSync(command, args, {
    cwd: root,
    encoding: "utf8",
    maxBuffer: 1 << 28,
    stdio: ["ignore", "pipe", "pipe"],
    ...options,
  });
  if (done.status === 0) return;
  process.stderr.write(`${done.stdout ?? ""}${done.stderr ?? ""}`);
  fail(`${command} ${args.join(" ")} failed${done.error ? `: ${done.error.message}` : ""}`);
}

export function onPath(program) {
  return (process.env.PATH ?? "")
    .split(":")
    .concat("/usr/sbin", "/sbin")
    .some((folder) => existsSync(join(folder, program)));
}

/** Installs Debian packages for the programs that are missing, or says the line that does. */
export function ensurePrograms(programs) {
  const missing = Object.keys(programs).filter((program) => !onPath(program));
  if (missing.length === 0) return;
  const packages = [...new Set(missing.map((program) => programs[program]))];
  const line = `apt-get install -y ${packages.join(" ")}`;
  const root = process.getuid?.() === 0;
  if (!root || !onPath("apt-get")) {
    fail(`${missing.join(", ")} missing; install: ${root ? "" : "sudo "}${line}`);
  }
  say(`installing system packages: ${packages.join(" ")}`);
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  run("apt-get", ["update", "-qq"], { env });
  run("apt-get", ["install", "-y", "-qq", "--no-install-recommends", ...packages], { env });
}

/** Of all files under the folders whose names pass; hidden and built ones are left out. */
export function hashOf(folders, passes, extra = "") {
  const hash = createHash("sha256").update(extra);
  const visit = (folder) => {
    for (const entry of readdirSync(folder, { withFileTypes: true }).sort((a, b) =>
      a.name < b.name ? -1 : 1,
    )) {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) {
        if (entry.name !== "build") visit(path);
      } else if (passes(entry.name)) {
        hash.update(path.slice(root.length)).update(readFileSync(path));
      }
    }
  };
  for (const folder of folders) visit(join(root, folder));
  return hash.digest("hex");
}

function stampSays(stamp, value) {
  return existsSync(stamp) && readFileSync(stamp, "utf8") === value;
}

/** Does `step` unless the stamp says that it was done for the same `value`. */
export function unlessStamped(stamp, value, step) {
  if (stampSays(stamp, value)) return;
  rmSync(stamp, { force: true });
  step();
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, value);
}

function ensureNode() {
  if (nodeVersion < 20) fail(`Node ${process.versions.node} is too old: 20 or later is needed`);
}

export function ensurePackages() {
  ensureNode();
  const lock = join(root, "package-lock.json");
  const value = createHash("sha256").update(readFileSync(lock)).digest("hex");
  unlessStamped(join(root, "node_modules/.v4l2loopback-fuse"), value, () => {
    say("installing packages …");
    const npm = process.env.npm_execpath;
    const args = ["ci", "--no-audit", "--no-fund"];
    // fuse-native ships a binary that loads; nothing else has to be built.
    if (npm?.endsWith(".js")) run(process.execPath, [npm, ...args]);
    else run("npm", args);
  });
}

function ensureAddon() {
  const value = hashOf(
    ["native"],
    (name) => /\.(cc|h|gyp)$/.test(name),
    `${process.version} ${process.arch}`,
  );
  unlessStamped(join(root, "native/build/.stamp"), value, () => {
    ensurePrograms({ "g++": "g++", make: "make", python3: "python3" });
    say("building the addon …");
    const gyp = join(root, "node_modules/node-gyp/bin/node-gyp.js");
    // Node often ships its headers; then nothing needs to be fetched.
    const prefix = dirname(dirname(process.execPath));
    const headers = existsSync(join(prefix, "include/node/node.h")) ? [`--nodedir=${prefix}`] : [];
    run(process.execPath, [gyp, "rebuild", "--directory=native", "-j", "2", ...headers]);
  });
}

function ensureTypeScript() {
  const value = hashOf(
    ["src"],
    (name) => name.endsWith(".ts"),
    readFileSync(join(root, "tsconfig.json")),
  );
  unlessStamped(join(root, "dist/.stamp"), value, () => {
    say("compiling TypeScript …");
    rmSync(join(root, "dist"), { recursive: true, force: true });
    run(process.execPath, [join(root, "node_modules/typescript/bin/tsc")]);
  });
}

function alive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

/** One at a time in a tree; a dead holder's lock is taken over. */
function locked(step) {
  const lock = join(root, ".build-lock");
  for (let waited = 0; ; waited += 1) {
    try {
      writeFileSync(lock, String(process.pid), { flag: "wx" });
      break;
    } catch (error) {
      if (error.code !== "EEXIST") fail(`${lock} can't be made: ${error.message}`);
    }
    const holder = Number(existsSync(lock) ? readFileSync(lock, "utf8") : 0);
    if (holder > 0 && !alive(holder)) rmSync(lock, { force: true });
    else Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
    if (waited > 3000) fail(`pid ${holder} holds ${lock} for 10 minutes`);
  }
  const release = () => rmSync(lock, { force: true });
  process.once("exit", release);
  step();
  process.removeListener("exit", release);
  release();
}

export function ensureBuilt() {
  ensureNode();
  locked(() => {
    ensurePackages();
    ensureAddon();
    ensureTypeScript();
  });
}
