/** The texts that tell of a ring: pure functions of its numbers. */
import type { ConsumerRow, RingCounters } from "../native.js";

const units: readonly [string, number][] = [
  ["GB", 1024 ** 3],
  ["MB", 1024 ** 2],
  ["KB", 1024],
];

/** Powers of 1024, two decimals cut off, none where both are zero; KB is the smallest unit. */
export function sizeText(bytes: number): string {
  const [name, unit] = units.find(([, each]) => bytes >= each) ?? ["KB", 1024];
  const hundredths = Number((BigInt(Math.trunc(bytes)) * 100n) / BigInt(unit));
  const whole = Math.floor(hundredths / 100);
  const rest = hundredths % 100;
  return rest === 0 ? `${whole} ${name}` : `${whole}.${String(rest).padStart(2, "0")} ${name}`;
}

/** Mean microseconds: two decimals below 10, whole above; 0 only where nothing was resized. */
export function averageText(count: number, totalNs: number): string {
  if (count === 0 || totalNs === 0) return "0";
  const microseconds = totalNs / count / 1000;
  if (microseconds >= 10) return String(Math.floor(microseconds));
  return (Math.max(Math.floor(microseconds * 100), 1) / 100).toFixed(2);
}

export const inactiveText = "Dynamic buffering is not active\n";

/** What `dynamic_buffer_stats` shows. */
export type Statistics = Pick<
  RingCounters,
  | "size"
  | "used"
  | "readOffset"
  | "writeOffset"
  | "uptimeMs"
  | "publishedFrames"
  | "deliveredFrames"
  | "droppedFrames"
  | "publishedBytes"
  | "deliveredBytes"
  | "expandCount"
  | "expandNs"
  | "shrinkCount"
  | "shrinkNs"
  | "lastExpandMs"
  | "lastShrinkMs"
>;

export function statisticsText(c: Statistics): string {
  const seconds = (ms: number) => Math.floor(ms / 1000);
  const percent = c.size === 0 ? 0 : Math.floor((c.used * 100) / c.size);
  const lines = [
    "=== V4L2-Loopback Dynamic Buffer Statistics ===",
    "-- Current State --",
    `Buffer size:     ${sizeText(c.size)}`,
    `Used:            ${sizeText(c.used)} (${percent}%)`,
    `Read offset:     ${c.readOffset}`,
    `Write offset:    ${c.writeOffset}`,
    `Uptime:          ${seconds(c.uptimeMs)} seconds`,
    "",
    "-- I/O Statistics --",
    `Frames written:  ${c.publishedFrames}`,
    `Frames read:     ${c.deliveredFrames}`,
    `Frames dropped:  ${c.droppedFrames}`,
    `Total written:   ${sizeText(c.publishedBytes)}`,
    `Total read:      ${sizeText(c.deliveredBytes)}`,
    "",
    "-- Resize Statistics --",
    `Expand count:    ${c.expandCount} (avg time: ${averageText(c.expandCount, c.expandNs)} µs)`,
    `Shrink count:    ${c.shrinkCount} (avg time: ${averageText(c.shrinkCount, c.shrinkNs)} µs)`,
  ];
  if (c.lastExpandMs >= 0) lines.push(`Last expand:     ${seconds(c.lastExpandMs)} seconds ago`);
  if (c.lastShrinkMs >= 0) lines.push(`Last shrink:     ${seconds(c.lastShrinkMs)} seconds ago`);
  return `${lines.join("\n")}\n`;
}

/** `dynamic_buffer_counters`: these names never change. */
const counterNames: readonly [string, keyof RingCounters][] = [
  ["size", "size"],
  ["used", "used"],
  ["resident", "resident"],
  ["held_frames", "heldFrames"],
  ["published_frames", "publishedFrames"],
  ["published_bytes", "publishedBytes"],
  ["delivered_frames", "deliveredFrames"],
  ["delivered_bytes", "deliveredBytes"],
  ["dropped_frames", "droppedFrames"],
  ["dropped_bytes", "droppedBytes"],
  ["left_frames", "leftFrames"],
  ["owed_frames", "owedFrames"],
  ["aborted_frames", "abortedFrames"],
  ["expand_count", "expandCount"],
  ["expand_ns", "expandNs"],
  ["expand_ns_max", "expandNsMax"],
  ["shrink_count", "shrinkCount"],
  ["shrink_ns", "shrinkNs"],
  ["shrink_ns_max", "shrinkNsMax"],
  ["commit_ns", "commitNs"],
  ["release_ns", "releaseNs"],
  ["producers", "producers"],
  ["consumers", "consumers"],
  ["stalled_consumers", "stalledConsumers"],
  ["uptime_ms", "uptimeMs"],
];

export function countersText(counters: RingCounters): string {
  return counterNames.map(([name, key]) => `${name} ${counters[key]}\n`).join("");
}

const columns: readonly [string, keyof ConsumerRow][] = [
  ["pid", "pid"],
  ["command", "command"],
  ["published", "published"],
  ["delivered", "delivered"],
  ["dropped", "dropped"],
  ["owed", "owed"],
  ["left", "left"],
  ["owed_bytes", "owedBytes"],
  ["lag_ms", "lagMs"],
];

/** A header, a line for each consumer, and the sum; tab-separated. The sum has `total` as its pid. */
export function consumersText(rows: readonly ConsumerRow[]): string {
  const lines = [columns.map(([name]) => name).join("\t")];
  rows.forEach((row, at) => {
    const isTotal = at === rows.length - 1;
    lines.push(
      columns
        .map(([, key]) =>
          isTotal && key === "pid" ? "total" : isTotal && key === "command" ? "-" : row[key],
        )
        .join("\t"),
    );
  });
  return `${lines.join("\n")}\n`;
}
