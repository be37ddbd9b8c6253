/**
 * The `dynamic_buffer_*` parameters: their names, and how their values are written and read. The
 * same in sysfs and on the command line.
 */
import { CodedError } from "../errors.js";
import type { RingParameters } from "../native.js";
import { kstrtoul } from "./kstrtoul.js";

type Key = Exclude<keyof RingParameters, "dynamic" | "maxBuffers">;

export interface BufferParameter {
  name: string;
  key: Key;
  /** Throws EINVAL or ERANGE with a sentence that names the value and what is allowed. */
  parse(text: string): number | string;
  help: string;
}

const units: Record<string, number> = { K: 1024, M: 1024 ** 2, G: 1024 ** 3 };
const largestSize = 2 ** 48;

/** Bytes, with an optional K, M or G of 1024. */
export function parseSize(text: string): number {
  const unit = /^(.*[0-9a-fA-F])([KMG])\n?$/i.exec(text);
  const bytes =
    unit === null
      ? kstrtoul(text)
      : kstrtoul(unit[1] ?? "") * (units[(unit[2] ?? "").toUpperCase()] ?? 1);
  if (bytes === 0 || bytes > largestSize) {
    throw new CodedError("EINVAL", `${text.trim()} is not within 1 and 256 TiB`);
  }
  return bytes;
}

function parseCount(text: string): number {
  const count = kstrtoul(text);
  if (count > 0xffffffff) throw new CodedError("EINVAL", `${text.trim()} is above 4294967295`);
  return count;
}

function choice(...allowed: string[]): (text: string) => string {
  return (text) => {
    const value = text.replace(/\n$/, "");
    if (!allowed.includes(value)) {
      throw new CodedError("EINVAL", `${JSON.stringify(value)} is not ${allowed.join(" or ")}`);
    }
    return value;
  };
}

export const bufferParameters: readonly BufferParameter[] = [
  {
    name: "dynamic_buffer_min",
    key: "min",
    parse: parseSize,
    help: "smallest size in bytes, or with K, M, G (two frames of the format)",
  },
  {
    name: "dynamic_buffer_max",
    key: "max",
    parse: parseSize,
    help: "largest size (the smaller of 256M and an eighth of the memory)",
  },
  {
    name: "dynamic_buffer_high_watermark",
    key: "highWatermark",
    parse: parseCount,
    help: "percent of the size above which it doubles (75)",
  },
  {
    name: "dynamic_buffer_low_watermark",
    key: "lowWatermark",
    parse: parseCount,
    help: "percent at or below which it halves after the delay (25)",
  },
  {
    name: "dynamic_buffer_shrink_delay_ms",
    key: "shrinkDelayMs",
    parse: parseCount,
    help: "how long the low watermark must hold (5000)",
  },
  {
    name: "dynamic_buffer_overflow",
    key: "overflow",
    parse: choice("block", "drop"),
    help: "block or drop: what happens when it is full at its largest (block)",
  },
  {
    name: "dynamic_buffer_stall_timeout_ms",
    key: "stallTimeoutMs",
    parse: parseCount,
    help: "after which a consumer that takes nothing is lapped; 0: never (1000)",
  },
  {
    name: "dynamic_buffer_lap",
    key: "lap",
    parse: choice("newest", "oldest"),
    help: "newest or oldest: where a lapped consumer goes on (newest)",
  },
];

/** `0` or `1`. */
export function parseSwitch(text: string): boolean {
  const value = kstrtoul(text);
  if (value > 1) throw new CodedError("EINVAL", `${text.trim()} is neither 0 nor 1`);
  return value === 1;
}
