/**
 * Memory that a cgroup refuses. The kernel does not say no there, it kills: so the daemon must stop
 * by itself before.
 */
import { afterEach, expect, test } from "vitest";
import { type Mounted, mounted, stopAllMounts, until } from "../support/mounted.js";
import { type MemoryCgroup, makeMemoryCgroup } from "../support/memory-cgroup.js";
import { consumer, producer, stopAll } from "../support/programs.js";

const made: MemoryCgroup[] = [];

afterEach(async () => {
  await stopAll();
  await stopAllMounts();
  for (const cgroup of made.splice(0)) await cgroup.remove();
});

const MiB = 1024 ** 2;
/** The daemon itself takes part of it. */
const limit = 192 * MiB;

function cgroupOrSkip(skip: (reason: string) => never): MemoryCgroup {
  const cgroup = makeMemoryCgroup();
  if (typeof cgroup === "string") return skip(cgroup);
  made.push(cgroup);
  return cgroup;
}

function refusals(daemon: Mounted): string[] {
  return daemon.errors().match(/no memory to grow.*/g) ?? [];
}

test("a full cgroup: growth stops before the kernel kills, nothing is lost, and it can be switched on again", async ({
  skip,
}) => {
  const cgroup = cgroupOrSkip(skip);
  cgroup.limit(limit);
  const daemon = await mounted(
    [
      "video_nr=10",
      "dynamic_buffering=1",
      "dynamic_buffer_max=512M",
      "dynamic_buffer_stall_timeout_ms=0",
    ],
    { cgroup: cgroup.path },
  );
  const slow = consumer([daemon.dev(10), "--stop-after-frames", "1", "--hold", "--count", "500"]);
  await slow.ready;
  await daemon.joined(10, 1);
  const fast = producer([daemon.dev(10), "--count", "500"]);
  await until(
    "growth is refused",
    async () => (await daemon.read(10, "dynamic_buffering")) === "0\n",
  );
  // The ring stays at its size, and is filled to the last frame.
  const { size = 0 } = await daemon.counters(10);
  await until("it is full", async () => ((await daemon.counters(10)).used ?? 0) > size - 614400);
  const full = await daemon.counters(10);
  expect(full).toMatchObject({ size, dropped_frames: 0, stalled_consumers: 0 });
  expect(size).toBeGreaterThanOrEqual(32 * MiB);
  expect(size).toBeLessThan(limit);
  expect(refusals(daemon)).toHaveLength(1);
  expect(refusals(daemon)[0]).toContain(cgroup.path);
  expect(cgroup.oomKills()).toBe(0);

  // Written again while there still is no memory: it is refused again.
  await daemon.write(10, "dynamic_buffering", "1");
  await until("growth is refused again", () => refusals(daemon).length === 2);
  expect(await daemon.read(10, "dynamic_buffering")).toBe("0\n");
  expect(cgroup.oomKills()).toBe(0);

  cgroup.limit("unlimited");
  await daemon.write(10, "dynamic_buffering", "1");
  await until("it has grown", async () => ((await daemon.counters(10)).size ?? 0) >= 2 * size);
  expect(await daemon.read(10, "dynamic_buffering")).toBe("1\n");
  slow.signal("SIGUSR1");
  expect(await fast.done).toMatchObject({ frames: 500, errno: null });
  expect(await slow.done).toMatchObject({ frames: 500, torn: 0, gaps: 0, reordered: 0 });
  expect(await daemon.counters(10)).toMatchObject({ dropped_frames: 0, aborted_frames: 0 });
  expect(refusals(daemon)).toHaveLength(2);
  expect(cgroup.oomKills()).toBe(0);
});

test("several devices that grow at once do not promise the same memory twice", async ({ skip }) => {
  const cgroup = cgroupOrSkip(skip);
  const numbers = [10, 11, 12, 13];
  cgroup.limit(limit);
  const daemon = await mounted(
    [
      "devices=4",
      "video_nr=10,11,12,13",
      "dynamic_buffering=1",
      "dynamic_buffer_max=512M",
      "dynamic_buffer_stall_timeout_ms=0",
    ],
    { cgroup: cgroup.path },
  );
  const readers = numbers.map((number) =>
    consumer([daemon.dev(number), "--stop-after-frames", "1", "--hold", "--count", "300"]),
  );
  for (const reader of readers) await reader.ready;
  for (const number of numbers) await daemon.joined(number, 1);
  const writers = numbers.map((number) => producer([daemon.dev(number), "--count", "300"]));
  for (const number of numbers) {
    await until(`growth of video${number} is refused and it is full`, async () => {
      const { size = 0, used = 0 } = await daemon.counters(number);
      return (await daemon.read(number, "dynamic_buffering")) === "0\n" && used > size - 614400;
    });
  }
  expect(cgroup.oomKills()).toBe(0);
  cgroup.limit("unlimited");
  for (const number of numbers) await daemon.write(number, "dynamic_buffering", "1");
  for (const reader of readers) reader.signal("SIGUSR1");
  for (const writer of writers) expect(await writer.done).toMatchObject({ frames: 300 });
  for (const reader of readers) {
    expect(await reader.done).toMatchObject({ frames: 300, torn: 0, gaps: 0, reordered: 0 });
  }
});
