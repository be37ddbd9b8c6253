// results.md, written from what was found and from nothing else.
import type { Section, Table, Verdict } from "./bench.js";

function row(cells: readonly string[]): string {
  return `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
}

function table({ columns, rows }: Table): string {
  return [row(columns), row(columns.map(() => "---")), ...rows.map(row)].join("\n");
}

export interface Report {
  kind: string;
  machine: [string, string][];
  minutes: number;
  rounds: number;
  sections: Section[];
}

function targets(verdicts: readonly Verdict[]): Table {
  return {
    columns: ["what", "reach", "found", "reached"],
    rows: verdicts.map(({ what, reach, found, reached }) => [
      what,
      reach,
      found,
      reached ? "yes" : "no",
    ]),
  };
}

export function markdown({ kind, machine, minutes, rounds, sections }: Report): string {
  const verdicts = sections.flatMap((section) => section.verdicts);
  const reached = verdicts.filter((verdict) => verdict.reached).length;
  const parts = [
    "# Measured",
    `Written by \`npm run bench\` (${kind}; ${minutes.toFixed(0)} minutes), not by hand. Each trial ` +
      "has processes and a daemon of its own; contenders, baselines among them, take turns, up to " +
      `${rounds} trials each. A figure is the median over the trials of each trial's median, p99 ` +
      "likewise; *trials* gives the lowest and the highest trial. Times are CLOCK_MONOTONIC's.",
    table({ columns: ["", ""], rows: machine }),
    ...(verdicts.length === 0
      ? []
      : ["## Targets", `${reached} of ${verdicts.length} reached.`, table(targets(verdicts))]),
    ...sections.flatMap(({ title, about, tables, notes }) => [
      `## ${title}`,
      about,
      ...tables.map(table),
      ...(notes ?? []),
    ]),
  ];
  return `${parts.join("\n\n")}\n`;
}
