/**
 * The faults of the kernel patch that this replaces, each by its name: through a real device, each
 * test does what made the patch fail.
 */
import { spawn } from "node:child_process";
import { afterEach, expect, test } from "vitest";
import { type Mounted, mounted, stopAllMounts, until } from "../support/mounted.js";
import { consumer, producer, stopAll, talker } from "../support/programs.js";

const children: ReturnType<typeof spawn>[] = [];

afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  await stopAll();
  await stopAllMounts();
});

const frameBytes = 614400;

function mountedDynamic(...more: string[]): Promise<Mounted> {
  return mounted(["dynamic_buffering=1", "video_nr=10", ...more]);
}

/** A number, or what stands in brackets, of a line of dynamic_buffer_stats. */
async function statistic(daemon: Mounted, name: string): Promise<string> {
  const text = await daemon.read(10, "dynamic_buffer_stats");
  return new RegExp(`^${name}: +(.*)$`, "m").exec(text)?.[1] ?? `no ${name} in ${text}`;
}

for (const [how, ...args] of [
  ["by read", "--method", "read"],
  // Overtaken in the middle of a frame; it ends by itself, so as not to leave the last one undone.
  ["by read in pieces", "--method", "read", "--read-bytes", "100000", "--idle-ms", "3000"],
  ["by mmap", "--method", "mmap"],
]) {
  test(`torn frame: a reader (${how}) that is overtaken loses frames, never parts of them`, async () => {
    const daemon = await mountedDynamic("dynamic_buffer_max=2M", "dynamic_buffer_overflow=drop");
    const slow = consumer([daemon.dev(10), ...args, "--delay-ms", "5"]);
    await slow.ready;
    await daemon.joined(10, 1);
    const fast = producer([daemon.dev(10), "--count", "400"]);
    expect(await fast.done).toMatchObject({ frames: 400, errno: null });
    await until("it was given what is left", async () => {
      return (await daemon.counters(10)).owed_frames === 0;
    });
    if (!args.includes("--idle-ms")) slow.signal("SIGTERM");
    const seen = await slow.done;
    expect(seen).toMatchObject({ torn: 0, reordered: 0, errno: null });
    // It was overtaken indeed.
    expect(seen.gaps).toBeGreaterThan(0);
    expect(seen.frames).toBeGreaterThan(1);
  });
}

test("shared cursor: consumers take no frame from one another", async () => {
  const daemon = await mountedDynamic("dynamic_buffer_stall_timeout_ms=0");
  const readers = ["read", "mmap", "read-poll", "mmap-poll"].map((method) =>
    consumer([daemon.dev(10), "--method", method, "--count", "150"]),
  );
  for (const reader of readers) await reader.ready;
  await daemon.joined(10, readers.length);
  expect(await producer([daemon.dev(10), "--count", "150"]).done).toMatchObject({ frames: 150 });
  for (const reader of readers) {
    expect(await reader.done).toMatchObject({ frames: 150, torn: 0, gaps: 0, reordered: 0 });
  }
});

test("loss not counted: what a reader did not see is what Frames dropped says", async () => {
  const daemon = await mountedDynamic("dynamic_buffer_max=2M", "dynamic_buffer_overflow=drop");
  const slow = consumer([daemon.dev(10), "--delay-ms", "10"]);
  await slow.ready;
  await daemon.joined(10, 1);
  expect(await producer([daemon.dev(10), "--count", "400"]).done).toMatchObject({ frames: 400 });
  await until("nothing more is owed", async () => (await daemon.counters(10)).owed_frames === 0);
  const dropped = Number(await statistic(daemon, "Frames dropped"));
  const read = Number(await statistic(daemon, "Frames read"));
  slow.signal("SIGTERM");
  const seen = await slow.done;
  expect(dropped).toBeGreaterThan(0);
  expect({ read, dropped }).toEqual({ read: seen.frames, dropped: 400 - seen.frames });
  expect(await statistic(daemon, "Frames written")).toBe("400");
});

test("zero-filled frame returned as success: where there is no frame, none is given", async () => {
  const daemon = await mountedDynamic();
  const talk = talker();
  await talk.send(`open r ${daemon.dev(10)} r nonblock`);
  await talk.send(`open s ${daemon.dev(10)} rw nonblock`);
  await talk.send("reqbufs s capture 2");
  await talk.send("map s capture");
  for (const index of [0, 1]) await talk.send(`qbuf s capture ${index}`);
  await talk.send("streamon s capture");
  const nothing = { ok: false, errno: "EAGAIN" };
  for (const byte of [7, 8]) {
    expect(await talk.send(`read r ${frameBytes}`)).toMatchObject(nothing);
    expect(await talk.send("dqbuf s capture")).toMatchObject(nothing);
    await talk.send(`open w ${daemon.dev(10)} w`);
    await talk.send(`write w ${frameBytes} ${byte}`);
    const frame = { ok: true, first: byte, last: byte };
    expect(await talk.send(`read r ${frameBytes}`)).toMatchObject({ ...frame, count: frameBytes });
    expect(await talk.send("dqbuf s capture")).toMatchObject({ ...frame, bytesused: frameBytes });
    for (const index of [0, 1]) await talk.send(`qbuf s capture ${index}`);
    await talk.send("close w");
  }
  expect(await talk.send(`read r ${frameBytes}`)).toMatchObject(nothing);

  // A reader that outruns its producer, and asks again and again.
  const eager = consumer([daemon.dev(10), "--method", "read-poll", "--nonblock", "--count", "50"]);
  await eager.ready;
  await daemon.joined(10, 3);
  await producer([daemon.dev(10), "--count", "50", "--fps", "100"]).done;
  expect(await eager.done).toMatchObject({ frames: 50, torn: 0, gaps: 0, errno: null });
});

test("false end-of-file: read never returns 0, before, between and after producers", async () => {
  const daemon = await mountedDynamic();
  const readers = [1, 2].map(() => {
    const child = spawn("cat", [daemon.dev(10)], { stdio: ["ignore", "pipe", "ignore"] });
    children.push(child);
    const reader = { child, bytes: 0 };
    child.stdout.on("data", (data: Buffer) => {
      reader.bytes += data.length;
    });
    return reader;
  });
  await daemon.joined(10, readers.length);
  for (const round of [1, 2, 3]) {
    expect(await producer([daemon.dev(10), "--count", "5"]).done).toMatchObject({ frames: 5 });
    for (const reader of readers) {
      await until("all has been read", () => reader.bytes === round * 5 * frameBytes);
    }
  }
  expect(readers.map(({ child }) => child.exitCode)).toEqual([null, null]);
});

test("percentage overflow above 42 MB: Used (NN%) is right where used * 100 exceeds 32 bits", async () => {
  const daemon = await mountedDynamic(
    "dynamic_buffer_max=128M",
    "dynamic_buffer_stall_timeout_ms=0",
  );
  const stalled = talker();
  await stalled.send(`open r ${daemon.dev(10)} r nonblock`);
  await stalled.send("poll r in 0");
  await daemon.joined(10, 1);
  for (const frames of [60, 80, 110]) {
    const before = (await daemon.counters(10)).owed_frames ?? 0;
    await producer([daemon.dev(10), "--count", frames - before]).done;
    const { used = 0, size = 1 } = await daemon.counters(10);
    expect(used).toBe(frames * frameBytes);
    const percent = Math.floor((used / size) * 100);
    expect(await statistic(daemon, "Used")).toMatch(new RegExp(`^[0-9.]+ MB \\(${percent}%\\)$`));
  }
  expect((await daemon.counters(10)).used).toBeGreaterThan(2 ** 32 / 100);
});

test("frozen timestamps: each frame has its own, of the time when it was published", async () => {
  const daemon = await mountedDynamic();
  const now = () => Number(process.hrtime.bigint() / 1000n);
  const before = now();
  const reader = consumer([daemon.dev(10), "--method", "mmap", "--count", "60"]);
  await reader.ready;
  await daemon.joined(10, 1);
  // Two, so that neither's own clock counts.
  const writers = ["write", "mmap"].map((method, at) =>
    producer([daemon.dev(10), "--id", at + 1, "--method", method, "--count", "30", "--fps", "60"]),
  );
  for (const writer of writers) await writer.done;
  const seen = await reader.done;
  expect(seen).toMatchObject({ frames: 60, timestampsAdvance: true, timestampsRepeated: 0 });
  expect(seen.firstTimestampUs).toBeGreaterThanOrEqual(before);
  expect(seen.lastTimestampUs).toBeLessThanOrEqual(now());
});

test("time of a resize never measured: avg time is not 0 once the ring has grown and shrunk", async () => {
  const daemon = await mountedDynamic(
    "dynamic_buffer_shrink_delay_ms=50",
    "dynamic_buffer_stall_timeout_ms=0",
  );
  expect(await statistic(daemon, "Expand count")).toBe("0 (avg time: 0 µs)");
  const reader = consumer([daemon.dev(10), "--delay-ms", "5", "--count", "60"]);
  await reader.ready;
  await daemon.joined(10, 1);
  await producer([daemon.dev(10), "--count", "60"]).done;
  expect(await reader.done).toMatchObject({ frames: 60 });
  await until("it has shrunk again", async () => (await daemon.counters(10)).size === 1228800);
  for (const kind of ["expand", "shrink"]) {
    const counted = await daemon.counters(10);
    const [count = 0, sum = 0, most = 0] = ["count", "ns", "ns_max"].map(
      (name) => counted[`${kind}_${name}`],
    );
    expect(count).toBeGreaterThan(0);
    expect(most).toBeGreaterThan(0);
    expect(sum).toBeGreaterThanOrEqual(most);
    const name = kind === "expand" ? "Expand count" : "Shrink count";
    const average = /^(\d+) \(avg time: ([0-9.]+) µs\)$/.exec(await statistic(daemon, name));
    expect(Number(average?.[1])).toBe(count);
    expect(Number(average?.[2])).toBeGreaterThan(0);
  }
});
