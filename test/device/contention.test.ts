/** Nobody holds up another; whatever waits ends at once when its program is told to. */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { afterEach, expect, test } from "vitest";
import { type Mounted, mounted, shell, stopAllMounts, until } from "../support/mounted.js";
import { consumer, producer, stopAll, talker } from "../support/programs.js";

const children: ChildProcess[] = [];

function start(program: string, args: string[]): ChildProcess {
  const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"] });
  children.push(child);
  return child;
}

const exit = (child: ChildProcess) =>
  new Promise<string | number | null>((resolve) =>
    child.on("exit", (code, signal) => resolve(signal ?? code)),
  );

afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  await stopAll();
  await stopAllMounts();
});

const frameBytes = 614400;

/** A ring that is full for good, with a producer that is held back. */
async function heldBack(): Promise<{ daemon: Mounted; writer: ChildProcess }> {
  const daemon = await mounted([
    "dynamic_buffering=1",
    "video_nr=10",
    "max_openers=20",
    "dynamic_buffer_max=2M",
    "dynamic_buffer_stall_timeout_ms=0",
  ]);
  const stalled = talker();
  await stalled.send(`open reader ${daemon.dev(10)} r nonblock`);
  // A poll makes it a reader.
  await stalled.send("poll reader in 0");
  await daemon.joined(10, 1);
  const writer = start("dd", ["if=/dev/zero", `of=${daemon.dev(10)}`, "bs=614400", "conv=notrunc"]);
  await until("the ring is full", async () => {
    const { used, size } = await daemon.counters(10);
    return (size ?? 0) === 2 * 1024 ** 2 && (used ?? 0) + frameBytes > (size ?? 0);
  });
  await waitsIn(writer.pid ?? 0);
  return { daemon, writer };
}

/** Until the process sleeps in a system call on the device. */
async function waitsIn(pid: number): Promise<void> {
  await until(`pid ${pid} waits`, () => {
    try {
      return /^State:\s+[SD]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
    } catch {
      return true;
    }
  });
}

for (const signal of ["SIGINT", "SIGTERM", "SIGKILL"] as const) {
  test(`${signal} ends a writer that is held back, and a reader of an idle device`, async () => {
    const { daemon, writer } = await heldBack();
    const ended = exit(writer);
    writer.kill(signal);
    expect(await ended).toBe(signal);
    await until("it is gone", async () => (await daemon.counters(10)).producers === 0);

    const idle = await mounted(["video_nr=11"]);
    const reader = start("cat", [idle.dev(11)]);
    await idle.joined(11, 1);
    const readerEnded = exit(reader);
    reader.kill(signal);
    expect(await readerEnded).toBe(signal);
    await idle.joined(11, 0);
  });
}

test("beside a producer that is held back, >, >> and an O_NONBLOCK writer each behave", async () => {
  const { daemon } = await heldBack();
  const device = daemon.dev(10);
  // Opening and truncating never waits.
  expect((await shell(`: > ${device}`)).code).toBe(0);
  expect((await shell(`: >> ${device}`)).code).toBe(0);
  const nonblocking = talker();
  await nonblocking.send(`open w ${device} w nonblock`);
  expect(await nonblocking.send(`write w ${frameBytes} 1`)).toMatchObject({
    ok: false,
    errno: "EAGAIN",
  });
  // Each of these waits by itself, and dies at once.
  for (const redirection of [">", ">>"]) {
    const waiting = start("bash", ["-c", `exec cat /dev/zero ${redirection} ${device}`]);
    const producers = (await daemon.counters(10)).producers ?? 0;
    await until("it is a producer", async () => {
      const counted = await daemon.counters(10);
      return (counted.producers ?? 0) > producers || (counted.producers ?? 0) >= 3;
    });
    await waitsIn(waiting.pid ?? 0);
    const ended = exit(waiting);
    waiting.kill("SIGKILL");
    expect(await ended).toBe("SIGKILL");
  }
});

test("an interrupted or refused write never leaves half a frame", async () => {
  const daemon = await mounted([
    "dynamic_buffering=1",
    "video_nr=10",
    "dynamic_buffer_max=64M",
    "dynamic_buffer_stall_timeout_ms=0",
  ]);
  const size = ["--size", "3840x2160"];
  const writers = [
    producer([daemon.dev(10), ...size, "--id", "1", "--nonblock", "--count", "20"]),
    producer([daemon.dev(10), ...size, "--id", "2", "--chunk", "1000000", "--count", "20"]),
  ];
  const reader = consumer([daemon.dev(10), "--delay-ms", "20", "--idle-ms", "4000"]);
  for (const writer of writers) {
    expect(await writer.done).toMatchObject({ frames: 20, errno: null });
  }
  expect(await reader.done).toMatchObject({ torn: 0, gaps: 0, reordered: 0 });

  const talk = talker();
  await talk.send(`open r ${daemon.dev(10)} r nonblock`);
  await talk.send("poll r in 0");
  await talk.send(`open w ${daemon.dev(10)} w`);
  const whole = 3840 * 2160 * 2;
  for (let at = 0; at < 5; at += 1) {
    const answer = await talk.send(`write w ${whole} 7`);
    if (!answer.ok) break;
    // The ring holds four; the fifth waits until the signal ends it.
    if (at === 3) await talk.send("alarm 300");
    expect(answer.count % whole).toBe(0);
  }
  const before = (await daemon.counters(10)).owed_frames;
  expect(before).toBe(4);
  await talk.send("close w");
  expect((await daemon.counters(10)).aborted_frames).toBe(0);
});

test("Ctrl-C ends the daemon while programs wait on its devices", async () => {
  const { daemon, writer } = await heldBack();
  const reader = start("cat", [daemon.dev(10)]);
  await daemon.joined(10, 2);
  const ends = [exit(writer), exit(reader)];
  daemon.signal("SIGINT");
  expect(await daemon.exited).toBe(0);
  for (const code of await Promise.all(ends)) expect(code).not.toBe(0);
});

test("a frame that waited for room reaches a reader that waits for it", async () => {
  const daemon = await mounted([
    "dynamic_buffering=1",
    "video_nr=10",
    "max_openers=20",
    `dynamic_buffer_max=${2 * frameBytes}`,
    "dynamic_buffer_stall_timeout_ms=0",
  ]);
  const device = daemon.dev(10);
  const slow = talker();
  await slow.send(`open r ${device} r nonblock`);
  await slow.send("poll r in 0");
  await daemon.joined(10, 1);
  const eager = start("dd", [`if=${device}`, "of=/dev/null", `bs=${frameBytes}`, "count=3"]);
  const served = exit(eager);
  await daemon.joined(10, 2);

  // Half a frame, whose room others may have once it has rested for a while.
  const resting = talker();
  await resting.send(`open w ${device} w`);
  await resting.send("write w 300000 1");
  const words = ["if=/dev/zero", `of=${device}`, `bs=${frameBytes}`, "count=2", "conv=notrunc"];
  expect(await exit(start("dd", words))).toBe(0);
  await until("the eager reader has both", async () => {
    return (await daemon.counters(10)).delivered_frames === 2;
  });
  await waitsIn(eager.pid ?? 0);

  expect(await resting.send(`write w ${frameBytes - 300000} 1`)).toMatchObject({ ok: true });
  expect(await daemon.counters(10)).toMatchObject({ published_frames: 2 });
  expect(await slow.send(`read r ${frameBytes}`)).toMatchObject({ ok: true });
  expect(await served).toBe(0);
  expect(await daemon.counters(10)).toMatchObject({ published_frames: 3, dropped_frames: 0 });
});
