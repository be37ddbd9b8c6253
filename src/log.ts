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
  /** Writes what is still to be said of lines that were held back. */
  flush(): void;
}

const windowMs = 5000;
/** Enough for a ring that doubles from its smallest to its largest at once. */
const linesPerWindow = 20;

interface Window {
  lines: number;
  held: number;
  latest: NativeLogRecord;
  timer: NodeJS.Timeout;
}

/**
 * Passes records on, and of a storm its first ones and, when its window ends, the last one with a
 * count. Each kind of message of each device has a window of its own: a storm of one hides no other.
 */
export class StormFilter implements Log {
  private readonly windows = new Map<string, Window>();

  constructor(private readonly pass: (record: NativeLogRecord) => void) {}

  write(record: NativeLogRecord): void {
    // Messages of one kind differ in their numbers alone.
    const kind = `${record.device} ${record.level} ${record.message.replace(/\d+/g, "0")}`;
    let window = this.windows.get(kind);
    if (window === undefined) {
      const timer = setTimeout(() => this.close(kind), windowMs).unref();
      window = { lines: 0, held: 0, latest: record, timer };
      this.windows.set(kind, window);
    }
    if (window.lines < linesPerWindow) {
      window.lines += 1;
      this.pass(record);
    } else {
      window.held += 1;
      window.latest = record;
    }
  }

  flush(): void {
    for (const kind of [...this.windows.keys()]) this.close(kind);
  }

  private close(kind: string): void {
    const window = this.windows.get(kind);
    if (window === undefined) return;
    clearTimeout(window.timer);
    this.windows.delete(kind);
    if (window.held === 0) return;
    const { latest, held } = window;
    this.pass({ ...latest, message: `${latest.message} (the last of ${held} such lines)` });
  }
}

export function createLog(level: LogLevel, format: LogFormat): Log {
  const destination =
    format === "pretty"
      ? PinoPretty({ destination: 2, sync: true, ignore: "pid,hostname,device" })
      : pino.destination({ dest: 2, sync: true });
  const logger: Logger = pino({ level }, destination);
  const filter = new StormFilter((record) => {
    const isDevice = record.device >= 0;
    const name = isDevice ? `v4l2-loopback: video${record.device}` : "v4l2-loopback";
    const fields = isDevice ? { device: `video${record.device}` } : {};
    logger[record.level](fields, `${name}: ${record.message}`);
  });
  return {
    write(record) {
      if (logger.isLevelEnabled(record.level)) filter.write(record);
    },
    flush: () => filter.flush(),
  };
}
