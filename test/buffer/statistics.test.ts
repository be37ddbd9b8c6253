import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  averageText,
  consumersText,
  countersText,
  sizeText,
  statisticsText,
} from "../../src/buffer/statistics.js";
import { native } from "../../src/native.js";

const golden = (name: string) => readFileSync(join(import.meta.dirname, "../golden", name), "utf8");

const resizes = { expandCount: 20, expandNs: 0, shrinkCount: 5, shrinkNs: 0, droppedFrames: 0 };

describe("the statistics text", () => {
  test("is the document's first state, byte for byte", () => {
    expect(
      statisticsText({
        ...resizes,
        size: 67108864,
        used: 35371886,
        readOffset: 30278802,
        writeOffset: 65650688,
        uptimeMs: 702_999,
        publishedFrames: 943176,
        deliveredFrames: 733284,
        publishedBytes: 579487334400,
        deliveredBytes: 450529689600,
        lastExpandMs: 80_000,
        lastShrinkMs: 260_000,
      }),
    ).toBe(golden("stats-1.txt"));
  });

  test("is the document's second state, byte for byte", () => {
    expect(
      statisticsText({
        ...resizes,
        size: 67108864,
        used: 56700343,
        readOffset: 53236297,
        writeOffset: 42827776,
        uptimeMs: 26_837_000,
        publishedFrames: 66485474,
        deliveredFrames: 48987061,
        publishedBytes: 40848675225600,
        deliveredBytes: 30097650278400,
        lastExpandMs: 26_216_000,
        lastShrinkMs: 26_396_000,
      }),
    ).toBe(golden("stats-2.txt"));
  });

  test("says nothing of resizes that there were not", () => {
    const text = statisticsText({
      ...resizes,
      expandCount: 0,
      shrinkCount: 0,
      size: 1228800,
      used: 0,
      readOffset: 0,
      writeOffset: 0,
      uptimeMs: 0,
      publishedFrames: 0,
      deliveredFrames: 0,
      publishedBytes: 0,
      deliveredBytes: 0,
      lastExpandMs: -1,
      lastShrinkMs: -1,
    });
    expect(text).not.toContain("Last");
    expect(text).toContain("Buffer size:     1.17 MB\nUsed:            0 KB (0%)\n");
  });
});

test.each([
  [0, "0 KB"],
  [512, "0.50 KB"],
  [1024, "1 KB"],
  [1228800, "1.17 MB"],
  [64 * 1024 ** 2, "64 MB"],
  [1024 ** 3 - 1, "1023.99 MB"],
  [40848675225600, "38043.29 GB"],
])("%d bytes are %s", (bytes, text) => {
  expect(sizeText(bytes)).toBe(text);
});

test.each([
  [0, 0, "0"],
  [8, 320, "0.04"],
  [1, 1, "0.01"],
  [1, 9_999, "9.99"],
  [1, 10_000, "10"],
  [2, 25_999, "12"],
])("%d resizes in %d ns take %s µs each", (count, ns, text) => {
  expect(averageText(count, ns)).toBe(text);
});

test("the counters are those of the specification, one a line, in its order", () => {
  const ring = new native.Ring({ sizeimage: 4096 });
  try {
    const lines = countersText(ring.counters()).trimEnd().split("\n");
    for (const line of lines) expect(line).toMatch(/^[a-z_]+ \d+$/);
    expect(lines.map((line) => line.split(" ")[0]).join(" ")).toBe(
      "size used resident held_frames published_frames published_bytes delivered_frames " +
        "delivered_bytes dropped_frames dropped_bytes left_frames owed_frames aborted_frames " +
        "expand_count expand_ns expand_ns_max shrink_count shrink_ns shrink_ns_max commit_ns " +
        "release_ns producers consumers stalled_consumers uptime_ms",
    );
  } finally {
    ring.close();
  }
});

test("the consumers are a header, a line for each, and the sum", () => {
  const row = {
    published: 9,
    delivered: 4,
    dropped: 2,
    owed: 3,
    left: 0,
    owedBytes: 1843200,
    lagMs: 17,
  };
  expect(
    consumersText([
      { pid: 42, command: "ffmpeg", ...row },
      { pid: 0, command: "total", ...row },
    ]),
  ).toBe(
    "pid\tcommand\tpublished\tdelivered\tdropped\towed\tleft\towed_bytes\tlag_ms\n" +
      "42\tffmpeg\t9\t4\t2\t3\t0\t1843200\t17\n" +
      "total\t-\t9\t4\t2\t3\t0\t1843200\t17\n",
  );
});
