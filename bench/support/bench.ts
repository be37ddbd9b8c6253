// What a benchmark is, and what it hands to the report.

export interface Effort {
  quick: boolean;
  /** How often each contender is tried. */
  rounds: number;
}

export interface Table {
  columns: string[];
  rows: string[][];
}

/** A target and what was found. Whether it was reached is computed, never typed. */
export interface Verdict {
  what: string;
  reach: string;
  found: string;
  reached: boolean;
}

export interface Section {
  title: string;
  /** What was done, in a sentence or two. */
  about: string;
  tables: Table[];
  verdicts: Verdict[];
  notes?: string[];
}

export interface Bench {
  /** What it is called on the command line. */
  name: string;
  run(effort: Effort): Promise<Section>;
}

export function atMost(what: string, found: number, limit: number, show: Show): Verdict {
  return { what, reach: `≤ ${show(limit)}`, found: show(found), reached: found <= limit };
}

export function below(what: string, found: number, limit: number, reach: string, show: Show) {
  return { what, reach, found: show(found), reached: found < limit } satisfies Verdict;
}

export type Show = (value: number) => string;

/** Three significant figures, never as a power of ten. */
export const figures: Show = (value) =>
  value === 0
    ? "0"
    : Number(value.toPrecision(3)).toLocaleString("en", {
        useGrouping: false,
        maximumFractionDigits: 6,
      });
export const microseconds: Show = (ns) => `${figures(ns / 1000)} µs`;
export const times: Show = (ratio) => `${figures(ratio)} ×`;
export const percent: Show = (part) => `${figures(part * 100)} %`;
export const megabytes: Show = (bytes) => `${figures(bytes / 1e6)} MB`;
