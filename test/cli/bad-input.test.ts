/** What is typed wrong gets one clear sentence and the right exit code; nothing is mounted. */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { isMounted, mounted, runCli, runProgram, stopAllMounts } from "../support/mounted.js";

let folder = "";
const cli = join(import.meta.dirname, "../../dist/cli/main.js");

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "v4l2loopback-bad-"));
});
afterEach(stopAllMounts);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function expectOneSentence(stderr: string, ...parts: string[]): void {
  expect(stderr.trimEnd().split("\n")).toHaveLength(1);
  expect(stderr).toMatch(/^v4l2loopback-fuse: /);
  for (const part of parts) expect(stderr).toContain(part);
}

test.each([
  ["video_nr=10,10", "10 is there twice"],
  ["video_nr=ten", '"ten"'],
  ["video_nr=70000", "65535"],
  ["devices=0", "0 is not within 1 and 1000"],
  ["devices", "devices=VALUE"],
  [`card_label=${"x".repeat(40)}`, "40 bytes, at most 31"],
  ["dynamic_buffer_max=1K", "dynamic_buffer_max=1K: ", "1024 bytes"],
  ["dynamic_buffer_max=big", '"big"'],
  ["dynamic_buffer_low_watermark=60", "60", "37 percent"],
  ["dynamic_buffer_overflow=wait", '"wait" is not block or drop'],
  ["dynamic_buffering=2", "neither 0 nor 1"],
  ["dynamic_bufering=1", "did you mean dynamic_buffering?"],
  ["nonsense=1", "unknown parameter nonsense", "card_label"],
  ["constructor=1", "unknown parameter constructor. Allowed are devices"],
  ["max_buffers=0", "0 is not within"],
  ["exclusive_caps=maybe", '"maybe"'],
])("mount %s", async (word, ...parts) => {
  const mountpoint = join(folder, "words");
  const done = await runCli(["mount", word, "--mountpoint", mountpoint, "--log-level", "silent"]);
  expect(done.code).toBe(2);
  expectOneSentence(done.stderr, ...parts);
  expect(isMounted(mountpoint)).toBe(false);
  expect(existsSync(mountpoint)).toBe(false);
});

test.each([
  [["--mode", "999"], "999"],
  [["--user", "nobody-of-that-name"], "there is no such user"],
  [["--log-level", "loud"], "loud"],
  [["--io-mode", "fast"], "fast"],
  [["--colour"], "--colour"],
])("mount %j", async (flags, part) => {
  const done = await runCli(["mount", "--mountpoint", join(folder, "flags"), ...flags]);
  expect(done.code).toBe(2);
  expect(done.stderr).toContain(part);
  expect(existsSync(join(folder, "flags"))).toBe(false);
});

test("a mountpoint that is a file, not empty, or the root", async () => {
  const file = join(folder, "file");
  writeFileSync(file, "");
  const full = join(folder, "full");
  mkdirSync(full);
  writeFileSync(join(full, "precious"), "");
  for (const [mountpoint, part] of [
    [file, `${file} is not a directory`],
    [full, `${full} is not empty`],
    ["/", "may not be /"],
    [join(file, "below"), `${file}/below`],
  ] as const) {
    const done = await runCli(["mount", "--mountpoint", mountpoint]);
    expect(done.code).toBe(1);
    expectOneSentence(done.stderr, part);
  }
  expect(existsSync(join(full, "precious"))).toBe(true);
});

test("a mountpoint that a living daemon serves is refused with its pid", async () => {
  const daemon = await mounted(["video_nr=10"]);
  const done = await runCli(["mount", "--mountpoint", daemon.path]);
  expect(done.code).toBe(1);
  expectOneSentence(done.stderr, daemon.path, `pid ${daemon.pid}`);
  expect(await daemon.read(10, "index")).toBe("0\n");
});

test("no /dev/fuse", async () => {
  const mountpoint = join(folder, "nofuse");
  const done = await runProgram("unshare", [
    "--mount",
    "bash",
    "-c",
    'mount -t tmpfs none /dev && exec "$0" "$@"',
    process.execPath,
    cli,
    "mount",
    "--mountpoint",
    mountpoint,
  ]);
  expect(done.code).toBe(1);
  expectOneSentence(done.stderr, "/dev/fuse");
  expect(existsSync(mountpoint)).toBe(false);
});

test("list, stats and umount say so where nothing is mounted", async () => {
  for (const command of ["list", "stats", "umount"]) {
    const done = await runCli([command, "--mountpoint", join(folder, "nothing")]);
    expect(done.code).toBe(1);
    expectOneSentence(done.stderr, "nothing of ours is mounted");
  }
});
