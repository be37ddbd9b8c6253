/** The numbers that a device tells add up in every reading, while everything happens to it. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { type Mounted, mounted, stopAllMounts, until } from "../support/mounted.js";
import {
  accountingChecker,
  consumer,
  type Program,
  producer,
  stopAll,
  storm,
} from "../support/programs.js";

const folders: string[] = [];

afterEach(async () => {
  await stopAll();
  await stopAllMounts();
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

/** Whole pages, so that what is owed in bytes is known. */
const frameBytes = 320 * 256 * 2;
const turns = Number(process.env.ACCOUNTING_TURNS ?? 400);
const size = ["--size", "320x256"];
const names = ["dynamic_buffer_counters", "dynamic_buffer_stats", "dynamic_buffer_consumers"];

function mountedSmall(): Promise<Mounted> {
  return mounted([
    "dynamic_buffering=1",
    "video_nr=10",
    "max_openers=100",
    "dynamic_buffer_max=8M",
    "dynamic_buffer_shrink_delay_ms=100",
    "dynamic_buffer_stall_timeout_ms=20",
  ]);
}

async function stop(programs: Program<{ event: "done" }>[]) {
  for (const each of programs) each.signal("SIGTERM");
  return Promise.all(programs.map((each) => each.done));
}

test("resets, both modes, lapping, consumers that come, go and die: the law holds in every reading", async () => {
  const daemon = await mountedSmall();
  const device = daemon.dev(10);
  // In a static ring only the first may stay, so they come while it is dynamic.
  const producers = ["write", "mmap", "write"].map((method, at) =>
    producer([device, ...size, "--id", at + 1, "--method", method, "--fps", 150]),
  );
  for (const each of producers) await each.ready;
  const readers = [
    consumer([device, "--method", "mmap"]),
    consumer([device, "--method", "read", "--delay-ms", "8"]),
    consumer([device, "--method", "mmap-poll", "--stop-after-frames", "3", "--hold"]),
  ];
  for (const each of readers) await each.ready;
  await daemon.joined(10, 3);
  const weather = storm([device, "--kills", 1_000_000, "--longest-us", 30_000, "--may-be-busy"]);
  await weather.ready;

  const checker = accountingChecker([
    dirname(daemon.attribute(10, "name")),
    ...["--turns", turns, "--frame-bytes", frameBytes, "--reset-every", 13, "--switch-every", 31],
  ]);
  let over = false;
  void checker.exited.then(() => {
    over = true;
  });
  for (let round = 0; !over; round += 1) {
    await daemon.write(10, "dynamic_buffer_overflow", round % 2 === 0 ? "drop" : "block");
    await daemon.write(10, "dynamic_buffer_lap", round % 3 === 0 ? "oldest" : "newest");
    await daemon.write(10, "dynamic_buffer_max", round % 5 === 0 ? "3M" : "8M");
  }
  const found = await checker.done;
  if (found.violations > 0) {
    const { rule, text } = await checker.event("violation");
    throw new Error(`${found.violations} violations, the first of "${rule}":\n${text}`);
  }
  expect(found.turns).toBe(turns);
  // A check of numbers that never move proves nothing.
  for (const moved of [found.resets, found.switches, found.mostDropped, found.mostLeft]) {
    expect(moved).toBeGreaterThan(0);
  }
  for (const moved of [found.active, found.exact, found.mostStalled]) {
    expect(moved).toBeGreaterThan(0);
  }
  expect(found.mostConsumers).toBeGreaterThan(3);

  const [killed] = await stop([weather]);
  expect(killed).toMatchObject({ torn: 0, failed: {} });
  await stop(producers);
  for (const seen of await stop(readers)) {
    expect(seen).toMatchObject({ torn: 0, reordered: 0, errno: null });
  }
  await until("nobody is left", async () => {
    const { producers, consumers, used, held_frames } = await daemon.counters(10);
    return producers === 0 && consumers === 0 && used === 0 && held_frames === 0;
  });
});

test("the checker finds each number that is wrong", async () => {
  const daemon = await mountedSmall();
  const reader = consumer([daemon.dev(10), "--stop-after-frames", "3", "--hold"]);
  await reader.ready;
  await daemon.joined(10, 1);
  await producer([daemon.dev(10), "--count", "40"]).done;
  await reader.event("holding");
  const texts = Object.fromEntries(
    await Promise.all(names.map(async (name) => [name, await daemon.read(10, name)] as const)),
  );
  const add = (pattern: RegExp, more: number) => (text: string) =>
    text.replace(pattern, (_all, before, value) => `${before}${Number(value) + more}`);
  const wrong: [string, string, (text: string) => string][] = [
    ["dynamic_buffer_consumers", "published =", add(/(\n\d+\t\S+\t)(\d+)/, 1)],
    ["dynamic_buffer_consumers", "published =", add(/(total\t-\t\d+\t\d+\t)(\d+)/, 1)],
    ["dynamic_buffer_consumers", "the texts", (text) => text.replace("lag_ms", "lag")],
    ["dynamic_buffer_counters", "used <= size", (text) => text.replace(/^size.*/, "size 4096")],
    ["dynamic_buffer_counters", "expands are", (text) => text.replace(/(expand_ns) .*/, "$1 0")],
    ["dynamic_buffer_counters", "dropped frames", add(/(dropped_frames )(\d+)/, 1)],
    ["dynamic_buffer_counters", "left_frames agree", add(/(left_frames )(\d+)/, 1)],
    ["dynamic_buffer_counters", "the texts", (text) => text.replace("left_frames", "left")],
    ["dynamic_buffer_stats", "a resize has", (text) => text.replace(/(avg time:) \S+/, "$1 0")],
    ["dynamic_buffer_stats", "Used is what", add(/(Write offset: +)(\d+)/, 4096)],
    ["dynamic_buffer_stats", "Used is what", add(/( \()(\d+)/, 1)],
    ["dynamic_buffer_stats", "dropped_frames agree", add(/(dropped: +)(\d+)/, 1)],
  ];
  const folder = mkdtempSync(join(tmpdir(), "v4l2loopback-test-"));
  folders.push(folder);
  for (const [name, rule, change] of wrong) {
    for (const each of names) writeFileSync(join(folder, each), texts[each] ?? "");
    writeFileSync(join(folder, name), change(texts[name] ?? ""));
    expect(readFileSync(join(folder, name), "utf8")).not.toBe(texts[name]);
    const checker = accountingChecker([folder, "--turns", 1, "--frame-bytes", 614400]);
    // Texts that stand still break another rule, too.
    const { broken } = await checker.done;
    expect(broken).toContainEqual(expect.stringContaining(rule));
  }
});
