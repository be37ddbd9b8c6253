/** A storm of log lines: its first ones, a count, and no other kind of line hidden by it. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { StormFilter } from "../../src/log.js";
import type { NativeLogRecord } from "../../src/native.js";

let passed: string[] = [];
let filter: StormFilter;

beforeEach(() => {
  vi.useFakeTimers();
  passed = [];
  filter = new StormFilter(({ device, message }) => passed.push(`${device}: ${message}`));
});
afterEach(() => vi.useRealTimers());

function write(message: string, device = 10, level: NativeLogRecord["level"] = "info"): void {
  filter.write({ device, level, message });
}

function storm(lines: number): void {
  for (let line = 1; line <= lines; line += 1) write(`lapped, ${line} frames dropped`);
}

test("a climb from the smallest to the largest size is told whole", () => {
  for (let size = 1; size <= 256; size *= 2) write(`size ${size} MB`);
  expect(passed).toHaveLength(9);
});

test("a storm becomes its first lines, and its last with a count when the window ends", () => {
  storm(1000);
  expect(passed).toHaveLength(20);
  vi.advanceTimersByTime(5000);
  expect(passed).toHaveLength(21);
  expect(passed.at(-1)).toBe("10: lapped, 1000 frames dropped (the last of 980 such lines)");
  storm(1);
  expect(passed).toHaveLength(22);
});

test("neither another kind of line nor another device is hidden by it", () => {
  storm(1000);
  write("memory to grow can't be had", 10, "warn");
  write("lapped, 1 frames dropped", 11);
  expect(passed.slice(20)).toEqual([
    "10: memory to grow can't be had",
    "11: lapped, 1 frames dropped",
  ]);
});

test("what was held back is told before the end", () => {
  storm(25);
  filter.flush();
  expect(passed).toHaveLength(21);
  vi.advanceTimersByTime(60_000);
  expect(passed).toHaveLength(21);
});
