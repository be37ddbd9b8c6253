/** Log lines: one each, with `v4l2-loopback` in it, on standard error. */
import { type Logger, pino } from "pino";
import { PinoPretty } from "pino-pretty";
import type { NativeLogRecord } from "./native.js";

export const logLevels = ["debug", "info", "warn", "error", "silent"] as const;
export type LogLevel = (typeof logLevels)[number];
export const logFormats = ["pretty", "json"] as const;
export type LogFormat = (typeof logFormats)[number];

export interface Log {
  write(record: NativeLogRecord): void;
}

const windowMs = 5000;
const linesPerWindow = 30;

/** A storm of lines about one device becomes the first ones and a count. */
export class RateLimit {
  private readonly windows = new Map<number, { start: number; lines: number; held: number }>();

  /** How many lines were held back before this one; -1: this one is held back, too. */
  admit(device: number, now: number): number {
    const current = this.windows.get(device);
    if (current === undefined || now - current.start >= windowMs) {
      this.windows.set(device, { start: now, lines: 1, held: 0 });
      return current?.held ?? 0;
    }
    if (current.lines >= linesPerWindow) {
      current.held += 1;
      return -1;
    }
    current.lines += 1;
    return 0;
  }
}

export function createLog(level: LogLevel, format: LogFormat): Log {
  const destination =
    format === "pretty"
      ? PinoPretty({ destination: 2, sync: true, ignore: "pid,hostname,device" })
      : pino.destination({ dest: 2, sync: true });
  const logger: Logger = pino({ level }, destination);
  const limit = new RateLimit();
  return {
    write(record) {
      if (!logger.isLevelEnabled(record.level)) return;
      const held = limit.admit(record.device, Date.now());
      if (held < 0) return;
      const name = record.device >= 0 ? `v4l2-loopback: video${record.device}` : "v4l2-loopback";
      const fields = record.device >= 0 ? { device: `video${record.device}` } : {};
      if (held > 0) logger.warn(fields, `${name}: ${held} lines were held back`);
      logger[record.level](fields, `${name}: ${record.message}`);
    },
  };
}
