import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { mounted, runProgram, shell, stopAllMounts, until } from "../support/mounted.js";

const folder = mkdtempSync(join(tmpdir(), "v4l2loopback-ffmpeg-"));
const children: ReturnType<typeof spawn>[] = [];

function start(args: string[]) {
  const child = spawn("ffmpeg", ["-nostdin", "-loglevel", "error", ...args], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  children.push(child);
  return child;
}

const exit = (child: ReturnType<typeof spawn>) =>
  new Promise<number | null>((resolve) => child.on("exit", resolve));

afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  await stopAllMounts();
  rmSync(folder, { recursive: true, force: true });
});

const frameBytes = 614400;
const frameHashes = (bytes: Buffer) =>
  Array.from({ length: bytes.length / frameBytes }, (_, at) =>
    createHash("md5")
      .update(bytes.subarray(at * frameBytes, (at + 1) * frameBytes))
      .digest("hex"),
  );

test("ffmpeg in; two ffmpeg and a cat out at once: real pictures, in order, to everybody", async () => {
  const daemon = await mounted(["dynamic_buffering=1", "video_nr=10"]);
  const source = ["-f", "lavfi", "-i", "testsrc=size=640x480:rate=30", "-pix_fmt", "yuyv422"];
  // What the pictures are, without the device.
  const expected = await runProgram("ffmpeg", [
    ...["-nostdin", "-loglevel", "error", ...source],
    ...["-frames:v", "300", "-f", "framemd5", "-"],
  ]);
  const hashes = expected.stdout
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => line.split(",").at(-1)?.trim());
  start(["-re", ...source, "-f", "v4l2", daemon.dev(10)]);
  await until("ffmpeg streams", async () => (await daemon.read(10, "state")) === "capture\n");
  expect(await daemon.read(10, "format")).toBe("YUYV:640x480@30\n");

  const a = join(folder, "a.yuv");
  const b = join(folder, "b.yuv");
  const [first, second, third] = await Promise.all([
    runProgram("ffmpeg", [
      ...["-nostdin", "-loglevel", "error", "-f", "v4l2", "-i", daemon.dev(10)],
      ...["-frames:v", "45", "-fps_mode", "passthrough", "-enc_time_base", "-1"],
      ...["-f", "framemd5", "-"],
    ]),
    exit(
      start([
        ...["-f", "v4l2", "-i", daemon.dev(10), "-frames:v", "45"],
        ...["-fps_mode", "passthrough", "-f", "rawvideo", a],
      ]),
    ),
    shell(`cat ${daemon.dev(10)} | head -c ${45 * frameBytes} > ${b}`),
  ]);
  expect([first.code, second, third.code]).toEqual([0, 0, 0]);
  const lines = first.stdout.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  expect(lines).toHaveLength(45);
  const times = lines.map((line) => Number(line.split(",")[2]));
  for (let at = 1; at < times.length; at += 1) {
    expect(times[at]).toBeGreaterThan(times[at - 1] ?? 0);
  }
  const follows = (seen: (string | undefined)[]) => {
    const start = hashes.indexOf(seen[0]);
    expect(start).toBeGreaterThanOrEqual(0);
    expect(seen).toEqual(hashes.slice(start, start + seen.length));
  };
  follows(lines.map((line) => line.split(",").at(-1)?.trim()));
  expect(statSync(a).size).toBe(45 * frameBytes);
  follows(frameHashes(readFileSync(a)));
  expect(statSync(b).size).toBe(45 * frameBytes);
  follows(frameHashes(readFileSync(b)));
  const counted = await daemon.counters(10);
  expect(counted.dropped_frames).toBe(0);
});

for (const [fourcc, pixelFormat] of [
  ["UYVY", "uyvy422"],
  ["NV12", "nv12"],
  ["YU12", "yuv420p"],
  ["RGB3", "rgb24"],
  ["BGR3", "bgr24"],
  ["GREY", "gray"],
] as const) {
  test(`${fourcc}: what ffmpeg wrote is what ffmpeg reads`, async () => {
    const daemon = await mounted(["dynamic_buffering=1", "video_nr=10"]);
    const size = "322x242";
    // One picture over and over: whichever frame the reader gets, its hash is known.
    const source = ["-f", "lavfi", "-i", `color=c=teal:size=${size}:rate=30`];
    const hash = async (args: string[]) => {
      const done = await runProgram("ffmpeg", [
        ...["-nostdin", "-loglevel", "error", ...args],
        ...["-frames:v", "1", "-f", "framemd5", "-"],
      ]);
      return done.stdout.trim().split("\n").at(-1)?.split(",").at(-1)?.trim();
    };
    start(["-re", ...source, "-pix_fmt", pixelFormat, "-f", "v4l2", daemon.dev(10)]);
    await until("ffmpeg streams", async () => (await daemon.read(10, "state")) === "capture\n");
    expect(await daemon.read(10, "format")).toBe(`${fourcc}:${size}@30\n`);
    const want = await hash([...source, "-pix_fmt", pixelFormat]);
    expect(await hash(["-f", "v4l2", "-i", daemon.dev(10)])).toBe(want);
  });
}

test("MJPEG: one write is one frame", async () => {
  const daemon = await mounted(["dynamic_buffering=1", "video_nr=10"]);
  const source = ["-f", "lavfi", "-i", "testsrc=size=640x480:rate=30"];
  start(["-re", ...source, "-c:v", "mjpeg", "-f", "v4l2", daemon.dev(10)]);
  await until("ffmpeg streams", async () => (await daemon.read(10, "state")) === "capture\n");
  expect(await daemon.read(10, "format")).toBe("MJPG:640x480@30\n");
  const done = await runProgram("ffmpeg", [
    ...["-nostdin", "-loglevel", "warning", "-f", "v4l2", "-i", daemon.dev(10)],
    ...["-frames:v", "20", "-fps_mode", "passthrough", "-f", "framemd5", "-"],
  ]);
  expect(done.code).toBe(0);
  expect(done.stdout.match(/^0,/gm)).toHaveLength(20);
});
