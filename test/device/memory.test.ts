/** Memory that is really refused: the ring stays as it is, says so once, and loses nothing. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { afterEach, expect, test } from "vitest";
import { mounted, stopAllMounts, until } from "../support/mounted.js";
import { consumer, producer, stopAll } from "../support/programs.js";

afterEach(async () => {
  await stopAll();
  await stopAllMounts();
});

function dataKilobytes(pid: number): number {
  return Number(/VmData:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
}

test("no memory to grow: nothing is lost, dynamic_buffering reads 0 until it is written again", async () => {
  const daemon = await mounted([
    "video_nr=10",
    "dynamic_buffering=1",
    "dynamic_buffer_stall_timeout_ms=0",
  ]);
  const slow = consumer([daemon.dev(10), "--delay-ms", "5", "--count", "300"]);
  await slow.ready;
  await daemon.joined(10, 1);
  const limit = (bytes: number | "unlimited") =>
    execFileSync("prlimit", [`--pid=${daemon.pid}`, `--data=${bytes}:unlimited`]);
  limit((dataKilobytes(daemon.pid) + 64 * 1024) * 1024);
  const fast = producer([daemon.dev(10), "--count", "300"]);
  await until(
    "growth is refused",
    async () => (await daemon.read(10, "dynamic_buffering")) === "0\n",
  );
  expect(await daemon.read(10, "dynamic_buffer_stats")).toContain("not active");
  const stuck = await daemon.counters(10);
  expect(stuck.size).toBeLessThan(Number(await daemon.read(10, "dynamic_buffer_max")));
  expect(daemon.errors().match(/no memory to grow/g)).toHaveLength(1);

  limit("unlimited");
  await daemon.write(10, "dynamic_buffering", "1");
  expect(await fast.done).toMatchObject({ frames: 300, errno: null });
  expect(await slow.done).toMatchObject({ frames: 300, torn: 0, gaps: 0, reordered: 0 });
  expect((await daemon.counters(10)).dropped_frames).toBe(0);
});
