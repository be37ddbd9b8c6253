import { afterEach, expect, test } from "vitest";
import { mounted, stopAllMounts, until } from "../support/mounted.js";
import { consumer, producer, stopAll } from "../support/programs.js";

afterEach(async () => {
  await stopAll();
  await stopAllMounts();
});

for (const mode of ["passthrough", "page-cache"]) {
  for (const method of ["write", "mmap"]) {
    for (const reading of ["read", "mmap"]) {
      test(`${mode}: two producers by ${method}, one consumer by ${reading}: all frames, whole`, async () => {
        const daemon = await mounted(["dynamic_buffering=1", "video_nr=10", "--io-mode", mode]);
        expect(daemon.output()).toContain(`(${mode})`);
        const reader = consumer([daemon.dev(10), "--method", reading, "--count", "400"]);
        await reader.ready;
        await daemon.joined(10, 1);
        const writers = ["1", "2"].map((id) =>
          producer([daemon.dev(10), "--id", id, "--count", "200", "--method", method]),
        );
        for (const writer of writers) {
          expect(await writer.done).toMatchObject({ frames: 200, errno: null });
        }
        const seen = await reader.done;
        expect(seen).toMatchObject({ frames: 400, torn: 0, gaps: 0, reordered: 0 });
        expect(seen.producers).toMatchObject({ "1": { count: 200 }, "2": { count: 200 } });
        expect((await daemon.counters(10)).dropped_frames).toBe(0);
      });
    }
  }
}

test("a producer killed in the middle of a frame leaves none of it, and one aborted frame", async () => {
  const daemon = await mounted(["dynamic_buffering=1", "video_nr=10"]);
  const reader = consumer([daemon.dev(10), "--count", "100"]);
  await reader.ready;
  await daemon.joined(10, 1);
  const half = producer([daemon.dev(10), "--id", "1", "--half-frame-then-wait"]);
  await half.event("half");
  const other = producer([daemon.dev(10), "--id", "2", "--count", "100", "--fps", "200"]);
  await other.ready;
  half.kill();
  await until(
    "the frame is counted as aborted",
    async () => (await daemon.counters(10)).aborted_frames === 1,
  );
  expect(await other.done).toMatchObject({ frames: 100, errno: null });
  const seen = await reader.done;
  expect(seen).toMatchObject({ frames: 100, torn: 0, gaps: 0 });
  expect((await daemon.counters(10)).producers).toBe(0);
});

test("static mode: a second producer gets EBUSY, and the producer never waits", async () => {
  const daemon = await mounted(["video_nr=10"]);
  const first = producer([daemon.dev(10), "--fps", "50"]);
  await first.ready;
  const second = producer([daemon.dev(10), "--count", "1"]);
  expect(await second.done).toMatchObject({ errno: "EBUSY" });
  // A reader that takes nothing holds up nobody.
  const stalled = consumer([daemon.dev(10), "--stop-after-frames", "1", "--hold"]);
  await stalled.event("first");
  const before = (await daemon.counters(10)).published_frames ?? 0;
  await until(
    "fifty more frames are published",
    async () => ((await daemon.counters(10)).published_frames ?? 0) > before + 50,
  );
  const counted = await daemon.counters(10);
  expect(counted.dropped_frames).toBeGreaterThan(0);
  expect(counted.owed_frames).toBeLessThanOrEqual(2);
});

test("the mode changes while frames flow, and no reader notices", async () => {
  const daemon = await mounted(["dynamic_buffering=1", "video_nr=10"]);
  const reader = consumer([daemon.dev(10)]);
  await reader.ready;
  await daemon.joined(10, 1);
  const writer = producer([daemon.dev(10), "--count", "300", "--fps", "100"]);
  await writer.ready;
  for (const mode of ["0", "1", "0", "1"]) {
    await daemon.write(10, "dynamic_buffering", `${mode}\n`);
    expect(await daemon.read(10, "dynamic_buffering")).toBe(`${mode}\n`);
    expect(await daemon.read(10, "dynamic_buffer_stats")).toContain(
      mode === "1" ? "=== V4L2-Loopback" : "not active",
    );
  }
  expect(await writer.done).toMatchObject({ frames: 300, errno: null });
  // While it was static the reader may have been too late for some: then they are counted.
  await until("everything was taken", async () => (await daemon.counters(10)).owed_frames === 0);
  const { published_frames, delivered_frames, dropped_frames } = await daemon.counters(10);
  expect(published_frames).toBe(300);
  expect((delivered_frames ?? 0) + (dropped_frames ?? 0)).toBe(300);
  reader.signal("SIGTERM");
  expect(await reader.done).toMatchObject({
    frames: delivered_frames,
    torn: 0,
    reordered: 0,
    errno: null,
  });
});

test("4K frames arrive whole, also while the producer is held back", async () => {
  const daemon = await mounted([
    "dynamic_buffering=1",
    "video_nr=10",
    "dynamic_buffer_stall_timeout_ms=0",
  ]);
  const size = ["--size", "3840x2160"];
  const writer = producer([daemon.dev(10), ...size]);
  await writer.ready;
  const reader = consumer([
    daemon.dev(10),
    "--method",
    "mmap",
    "--delay-ms",
    "50",
    "--count",
    "40",
  ]);
  const seen = await reader.done;
  expect(seen).toMatchObject({ frames: 40, torn: 0, gaps: 0, reordered: 0 });
  writer.signal("SIGTERM");
  expect(await writer.done).toMatchObject({ errno: null });
});

test("a storm of producers and consumers killed at any moment leaves nothing behind", async () => {
  const daemon = await mounted(["dynamic_buffering=1", "video_nr=10", "max_openers=50"]);
  const witness = consumer([daemon.dev(10), "--method", "mmap"]);
  await witness.ready;
  const steady = producer([daemon.dev(10), "--id", "99", "--fps", "60"]);
  await steady.ready;
  await daemon.joined(10, 1);
  for (let round = 0; round < 40; round += 1) {
    const each = [
      producer([
        daemon.dev(10),
        "--id",
        String(round + 1),
        "--method",
        round % 2 ? "write" : "mmap",
      ]),
      consumer([daemon.dev(10), "--method", round % 3 ? "mmap" : "read"]),
    ];
    await Promise.all(each.map((one) => one.ready));
    for (const one of each) one.kill();
  }
  await until("only two are left", async () => {
    const { producers, consumers } = await daemon.counters(10);
    return producers === 1 && consumers === 1;
  });
  steady.signal("SIGTERM");
  await steady.done;
  witness.signal("SIGTERM");
  expect(await witness.done).toMatchObject({ torn: 0, reordered: 0, errno: null });
  const total = (await daemon.consumers(10)).at(-1) ?? {};
  const value = (name: string) => Number(total[name]);
  expect(value("published")).toBe(
    value("delivered") + value("dropped") + value("owed") + value("left"),
  );
});
