import { readFileSync } from "node:fs";
import { afterEach, expect, test } from "vitest";
import { mounted, stopAllMounts, until } from "../support/mounted.js";
import { consumer, producer, stopAll } from "../support/programs.js";

afterEach(async () => {
  await stopAll();
  await stopAllMounts();
});

const frameBytes = 614400;
const max = 64 * 1024 ** 2;

function residentKilobytes(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
}

test("the ring doubles to its maximum, holds the producer back, and halves when its reader keeps up", async () => {
  const daemon = await mounted([
    "dynamic_buffering=1",
    "video_nr=10",
    "dynamic_buffer_max=64M",
    "dynamic_buffer_shrink_delay_ms=300",
    "dynamic_buffer_stall_timeout_ms=0",
  ]);
  const before = residentKilobytes(daemon.pid);
  const slow = consumer([daemon.dev(10), "--delay-ms", "10", "--count", "400"]);
  await slow.ready;
  await daemon.joined(10, 1);
  const fast = producer([daemon.dev(10), "--count", "400"]);
  await until("the ring is full at its maximum", async () => {
    const { size, used } = await daemon.counters(10);
    return size === max && (used ?? 0) + frameBytes > max;
  });
  const full = await daemon.counters(10);
  expect(full.expand_count).toBe(6);
  expect(full.expand_ns).toBeGreaterThan(0);
  expect(residentKilobytes(daemon.pid) - before).toBeGreaterThan(max / 1024 / 2);
  // Held back: not all is published while the ring is full.
  expect(full.published_frames).toBeLessThan(400);

  expect(await fast.done).toMatchObject({ frames: 400, errno: null });
  expect(await slow.done).toMatchObject({ frames: 400, torn: 0, gaps: 0, reordered: 0 });
  const after = await daemon.counters(10);
  expect(after.dropped_frames).toBe(0);
  expect(await daemon.read(10, "dynamic_buffer_stats")).toContain("Frames dropped:  0\n");

  // A producer at work and a consumer that keeps up: it shrinks all the same.
  const steady = consumer([daemon.dev(10)]);
  await steady.ready;
  await daemon.joined(10, 1);
  const paced = producer([daemon.dev(10), "--fps", "30"]);
  await paced.ready;
  await until("the ring has shrunk", async () => (await daemon.counters(10)).size === 1228800);
  const small = await daemon.counters(10);
  expect(small.shrink_count).toBe(6);
  await until(
    "the memory is given back",
    () => residentKilobytes(daemon.pid) - before < (max / 1024) * 0.25,
  );
  paced.signal("SIGTERM");
  await paced.done;
  steady.signal("SIGTERM");
  expect(await steady.done).toMatchObject({ torn: 0, gaps: 0, reordered: 0 });
  expect(daemon.errors()).toContain("v4l2-loopback: video10: buffer grew from 1228800 to 2457600");
});

test("drop: the producer never waits, and what the consumer lost is counted", async () => {
  const daemon = await mounted([
    "dynamic_buffering=1",
    "video_nr=10",
    "dynamic_buffer_max=4M",
    "dynamic_buffer_overflow=drop",
  ]);
  const slow = consumer([daemon.dev(10), "--delay-ms", "20", "--idle-ms", "3000"]);
  await slow.ready;
  await daemon.joined(10, 1);
  const fast = producer([daemon.dev(10), "--count", "300"]);
  expect(await fast.done).toMatchObject({ frames: 300, errno: null });
  const seen = await slow.done;
  const counted = await daemon.counters(10);
  expect(seen.torn).toBe(0);
  expect(counted.dropped_frames).toBeGreaterThan(0);
  expect(Number(seen.frames) + Number(counted.dropped_frames)).toBe(300);
});

test("a consumer that stalls is lapped after the timeout, and told so by gaps alone", async () => {
  const daemon = await mounted([
    "dynamic_buffering=1",
    "video_nr=10",
    "dynamic_buffer_max=4M",
    "dynamic_buffer_stall_timeout_ms=200",
  ]);
  const stalled = consumer([daemon.dev(10), "--stop-after-frames", "3", "--hold"]);
  await stalled.ready;
  await daemon.joined(10, 1);
  const other = consumer([daemon.dev(10), "--count", "100"]);
  await other.ready;
  await daemon.joined(10, 2);
  const fast = producer([daemon.dev(10), "--count", "100"]);
  expect(await fast.done).toMatchObject({ frames: 100 });
  expect(await other.done).toMatchObject({ frames: 100, torn: 0, gaps: 0 });
  const counted = await daemon.counters(10);
  expect(counted.stalled_consumers).toBe(1);
  expect(counted.dropped_frames).toBeGreaterThan(0);
  const total = (await daemon.consumers(10)).at(-1) ?? {};
  const value = (name: string) => Number(total[name]);
  expect(value("published")).toBe(
    value("delivered") + value("dropped") + value("owed") + value("left"),
  );
  expect(daemon.errors()).toContain("was lapped");
});
