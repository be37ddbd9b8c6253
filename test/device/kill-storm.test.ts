/**
 * SIGKILL at random moments, thousands of times, while others go on: nobody sees a torn frame, and
 * nothing is left behind. `STORM_KILLS` sets how many, `STORM_SEED` does an earlier storm again.
 */
import { readdirSync, readFileSync } from "node:fs";
import { afterEach, expect, test } from "vitest";
import { type Mounted, mounted, stopAllMounts, until } from "../support/mounted.js";
import { consumer, producer, stopAll, storm } from "../support/programs.js";

afterEach(async () => {
  await stopAll();
  await stopAllMounts();
});

const allKills = Number(process.env.STORM_KILLS ?? 3000);
const frameBytes = 320 * 256 * 2;

function residentBytes(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) * 1024;
}

function descriptors(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

function threads(pid: number): number {
  return readdirSync(`/proc/${pid}/task`).length;
}

/** Threads that look into what callers do go a second after the last; with none, all is idle. */
function looksAside(pid: number): boolean {
  return readdirSync(`/proc/${pid}/task`).some((id) => {
    try {
      return readFileSync(`/proc/${pid}/task/${id}/comm`, "utf8").startsWith("v4l2-aside");
    } catch {
      return true; // It is just going.
    }
  });
}

/** One producer and two consumers that live through it; what they saw is checked at the end. */
async function witnesses(daemon: Mounted) {
  const steady = producer([daemon.dev(10), "--id", "1", "--size", "320x256", "--fps", "100"]);
  await steady.ready;
  const readers = ["mmap", "read"].map((method) => consumer([daemon.dev(10), "--method", method]));
  for (const reader of readers) await reader.ready;
  await daemon.joined(10, 2);
  return { steady, readers };
}

const everyone = { producers: 0, consumers: 0, used: 0, owed_frames: 0, held_frames: 0 };

test.each([
  ["passthrough", allKills],
  ["page-cache", Math.ceil(allKills / 3)],
])(
  "%s, %i clients killed at random moments: no torn frame, no frame lost, nothing left behind",
  async (ioMode, kills) => {
    const daemon = await mounted([
      "dynamic_buffering=1",
      "video_nr=10",
      "max_openers=100",
      "dynamic_buffer_max=16M",
      "dynamic_buffer_stall_timeout_ms=0",
      ...["--io-mode", ioMode],
    ]);
    // What a first client leaves warm is no leak.
    const first = await witnesses(daemon);
    for (const each of [first.steady, ...first.readers]) {
      each.signal("SIGTERM");
      await each.done;
    }
    await until("all is given back", async () => (await daemon.counters(10)).resident === 0);
    await until("nothing is looked into", () => !looksAside(daemon.pid));
    const before = {
      resident: residentBytes(daemon.pid),
      descriptors: descriptors(daemon.pid),
      threads: threads(daemon.pid),
    };

    const { steady, readers } = await witnesses(daemon);
    const args = process.env.STORM_SEED === undefined ? [] : ["--seed", process.env.STORM_SEED];
    const weather = storm([
      daemon.dev(10),
      "--kills",
      kills,
      "--at-once",
      12,
      "--longest-us",
      50_000,
      ...args,
    ]);
    process.stdout.write(`kill storm with seed ${(await weather.ready).seed}\n`);
    const done = await weather.done;
    process.stdout.write(`${JSON.stringify(done)}\n`);
    expect(done).toMatchObject({ killed: kills, torn: 0, failed: {} });
    expect(done.written).toBeGreaterThan(kills / 10);
    expect(done.taken).toBeGreaterThan(kills / 10);

    await until("only the witnesses are left", async () => {
      const { producers, consumers } = await daemon.counters(10);
      return producers === 1 && consumers === 2;
    });
    // Clients that read what they write themselves may lose frames of it; others never.
    for (const row of (await daemon.consumers(10)).slice(0, 2)) {
      expect(row).toMatchObject({ command: "frame_consumer", dropped: "0" });
    }
    steady.signal("SIGTERM");
    const { frames } = await steady.done;
    for (const reader of readers) {
      reader.signal("SIGTERM");
      const seen = await reader.done;
      expect(seen).toMatchObject({ torn: 0, gaps: 0, reordered: 0, errno: null });
      expect(seen.producers["1"]?.count).toBeLessThanOrEqual(frames);
      expect(seen.frames).toBeGreaterThan(frames);
    }
    await until("all have left and all is given back", async () => {
      const counted = await daemon.counters(10);
      return counted.consumers === 0 && counted.resident === 0;
    });
    const after = await daemon.counters(10);
    expect(after).toMatchObject(everyone);
    const total = (await daemon.consumers(10)).at(-1) ?? {};
    const value = (name: string) => Number(total[name]);
    expect(value("published")).toBe(
      value("delivered") + value("dropped") + value("owed") + value("left"),
    );
    await until(
      "descriptors and threads are as before",
      () =>
        descriptors(daemon.pid) === before.descriptors && threads(daemon.pid) === before.threads,
    );
    // One slot a kill would be several times as much.
    const grown = residentBytes(daemon.pid) - before.resident;
    process.stdout.write(`resident ${before.resident} bytes before, ${grown} more after\n`);
    expect(grown).toBeLessThan(Math.max(kills * frameBytes * 0.1, 32 * 1024 ** 2));
  },
  600_000,
);
