/** The daemon's life: its greeting, its ends, and what it leaves. */
import { type ChildProcess, spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import {
  isMounted,
  mounted,
  runCli,
  runProgram,
  stopAllMounts,
  until,
} from "../support/mounted.js";

const children: ChildProcess[] = [];
const folders: string[] = [];
const root = join(import.meta.dirname, "../..");

afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  await stopAllMounts();
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

test("it says where it mounted, which devices there are and what to type next", async () => {
  const daemon = await mounted([
    "devices=3",
    "video_nr=10,11",
    "card_label=DynamicBuffer,Second one",
    "exclusive_caps=0,1",
  ]);
  expect(daemon.output()).toContain(`mounted at ${daemon.path}`);
  expect(daemon.output()).toContain(`${daemon.dev(10)}  DynamicBuffer\n`);
  expect(daemon.output()).toContain(`${daemon.dev(11)}  Second one\n`);
  expect(daemon.output()).toContain("ffmpeg");
  expect(await daemon.read(11, "name")).toBe("Second one\n");

  const at = ["--mountpoint", daemon.path];
  const listed = await runCli(["list", ...at]);
  expect(listed.stdout.trimEnd().split("\n")).toHaveLength(3);
  expect(listed.stdout).toContain(`${daemon.dev(10)}\toutput\t-\tDynamicBuffer\n`);
  expect((await runCli(["stats", "10", ...at])).stdout).toBe("Dynamic buffering is not active\n");
  const missing = await runCli(["stats", "12345", ...at]);
  expect(missing.code).toBe(1);
  expect(missing.stderr).toContain("there is no 12345; there are");

  expect(await runCli(["umount", ...at])).toMatchObject({ code: 0, stderr: "" });
  expect(await daemon.exited).toBe(0);
});

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  test(`${signal}: exit 0 and nothing left, also while programs hold files open`, async () => {
    const daemon = await mounted(["dynamic_buffering=1", "video_nr=10"]);
    const args = [daemon.dev(10), daemon.attribute(10, "dynamic_buffer_stats")];
    const opened = spawn(
      "bash",
      ["-c", 'exec 3< "$0" 4< "$1"; echo open; cat <&3 > /dev/null; exit 7', ...args],
      { stdio: ["ignore", "pipe", "ignore"] },
    );
    children.push(opened);
    const ended = new Promise((resolve) => opened.on("exit", resolve));
    await daemon.joined(10, 1);
    daemon.signal(signal);
    expect(await daemon.exited).toBe(0);
    expect(isMounted(daemon.path)).toBe(false);
    expect(existsSync(daemon.path)).toBe(false);
    // Its read ended with an error; it did not hang.
    expect(await ended).toBe(7);
  });
}

test("what a killed daemon left is cleared at the next start", async () => {
  const folder = mkdtempSync(join(tmpdir(), "v4l2loopback-stale-"));
  folders.push(folder);
  const mountpoint = join(folder, "v");
  const start = () => {
    const child = spawn(
      process.execPath,
      [join(root, "dist/cli/main.js"), "mount", "video_nr=10", "--mountpoint", mountpoint],
      { stdio: ["ignore", "pipe", "ignore"] },
    );
    children.push(child);
    return child;
  };
  const index = join(mountpoint, "sys/class/video4linux/video10/index");
  const serves = () => runProgram("cat", [index]).then(({ stdout }) => stdout === "0\n");
  const first = start();
  await until("the first serves", serves);
  const killed = new Promise((resolve) => first.on("exit", resolve));
  first.kill("SIGKILL");
  await killed;
  expect(isMounted(mountpoint)).toBe(true);
  const second = start();
  await until("the second serves", serves);
  const ended = new Promise((resolve) => second.on("exit", resolve));
  second.kill("SIGTERM");
  expect(await ended).toBe(0);
  expect(isMounted(mountpoint)).toBe(false);
});

test.each([
  // As a terminal's Ctrl-C does: to the whole group.
  ["SIGINT to its group", (pid: number) => process.kill(-pid, "SIGINT")],
  ["SIGTERM to npm", (pid: number) => process.kill(pid, "SIGTERM")],
])("npm run mount: %s unmounts", async (_name, end) => {
  const folder = mkdtempSync(join(tmpdir(), "v4l2loopback-npm-"));
  folders.push(folder);
  const mountpoint = join(folder, "v");
  const npm = spawn("npm", ["run", "mount", "--", "video_nr=10", "--mountpoint", mountpoint], {
    cwd: root,
    stdio: ["ignore", "ignore", "ignore"],
    detached: true,
  });
  children.push(npm);
  const ended = new Promise((resolve) => npm.on("exit", resolve));
  await until("it is mounted", async () => {
    const index = join(mountpoint, "sys/class/video4linux/video10/index");
    return (await runProgram("cat", [index])).code === 0;
  });
  if (npm.pid === undefined) throw new Error("npm did not start");
  end(npm.pid);
  await ended;
  await until("it is unmounted", () => !isMounted(mountpoint) && !existsSync(mountpoint));
});

test("a mountpoint reached by a link serves and unmounts where the link leads", async () => {
  const folder = mkdtempSync(join(tmpdir(), "v4l2loopback-link-"));
  folders.push(folder);
  mkdirSync(join(folder, "real"));
  symlinkSync("real", join(folder, "link"));
  for (const mountpoint of [join(folder, "link"), join(folder, "link/made")]) {
    const child = spawn(
      process.execPath,
      [join(root, "dist/cli/main.js"), "mount", "video_nr=10", "--mountpoint", mountpoint],
      { stdio: ["ignore", "ignore", "ignore"] },
    );
    children.push(child);
    const ended = new Promise((resolve) => child.on("exit", resolve));
    const index = join(mountpoint, "sys/class/video4linux/video10/index");
    await until("it serves", async () => (await runProgram("cat", [index])).stdout === "0\n");
    expect((await runCli(["umount", "--mountpoint", mountpoint])).code).toBe(0);
    expect(await ended).toBe(0);
    expect(isMounted(folder)).toBe(false);
    // What was there stays, what was made is gone.
    expect(readdirSync(join(folder, "real"))).toEqual([]);
  }
});

test("log lines carry the document's name, as JSON or for people", async () => {
  const daemon = await mounted([
    "video_nr=10",
    "dynamic_buffering=1",
    "--log-format",
    "pretty",
    "--log-level",
    "debug",
  ]);
  expect(daemon.errors()).toContain("v4l2-loopback: mounted at");
});

test("a terminal that hangs up ends the daemon cleanly", async () => {
  const folder = mkdtempSync(join(tmpdir(), "v4l2loopback-hangup-"));
  folders.push(folder);
  const mountpoint = join(folder, "v");
  const code = join(folder, "code");
  const mount = `${process.execPath} ${join(root, "dist/cli/main.js")} mount --mountpoint ${mountpoint}`;
  // The shell outlives the terminal, to say how the daemon ended.
  const child = spawn("script", ["-qec", `trap '' HUP; ${mount}; echo $? > ${code}`, "/dev/null"], {
    stdio: ["ignore", "ignore", "ignore"],
  });
  children.push(child);
  await until("it is mounted", () => isMounted(join(mountpoint, "sys")));
  const daemon = Number.parseInt(readFileSync(join(mountpoint, ".daemon"), "utf8"), 10);
  child.kill("SIGKILL");
  process.kill(daemon, "SIGHUP");
  await until("it has ended", () => existsSync(code) && readFileSync(code, "utf8") !== "");
  expect(readFileSync(code, "utf8")).toBe("0\n");
  expect(isMounted(mountpoint)).toBe(false);
});
