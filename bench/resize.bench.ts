// What a resize costs, in process, and what it does to the writes around it.
//
//   size        ┌──────────────┐            ┌─
//               │              │            │      held stays where it is: 1.2 MB or 256 MB
//   ────────────┘              └────────────┘
//          a publish    the housekeeper  a publish …
//          grows it        halves it
//
//   fill   ┌──┬──┬──┬──┬─ … ─┐    publishes without a reader until 256 MB are held
//          └──┴─▲┴──┴─▲┴─ … ─┘
//             grows  grows        against the same publishes into a ring of that size already
//
// What a resize does to a write is seen by comparing the write in which the ring grew with the one
// at the same place of a fill that need not grow: both touch new memory (cold), or both memory
// that was used before (warm), so what is left is the resize. A cold fill follows a second of calm.
import {
  atMost,
  type Bench,
  below,
  type Effort,
  figures,
  type Section,
  times,
  type Verdict,
} from "./support/bench.js";
import { client, type Line } from "./support/clients.js";
import { median, quantile, trialOf } from "./support/statistics.js";
import { inTurns, type Quantities, summary } from "./support/trials.js";

const few = 2; // Frames of 614400 bytes: 1.2 MB.
const many = 417; // 256 MB.

interface Fill {
  writeNs: number[];
  grew: number[];
}

async function resized(held: number): Promise<Quantities> {
  const line: Line = await client("ring_bench", [
    "resize",
    ...["--held", held, "--cycles", 2000],
  ]).done();
  return {
    expand: trialOf(line.expandNs),
    shrink: trialOf(line.shrinkNs),
    growing: trialOf(line.growingNs),
    steady: trialOf(line.steadyNs),
  };
}

async function fills(words: string[], count: number): Promise<Fill[]> {
  const held = ["--held", many, "--fills", count];
  return (await client("ring_bench", ["fill", ...held, ...words]).done()).fills;
}

const us = (ns: number) => figures(ns / 1000);

/** Of all fills, what the writes at one place took. */
function at(all: readonly Fill[], place: number): number[] {
  return all.flatMap(({ writeNs }) => writeNs[place] ?? []);
}

function compared(kind: string, growing: Fill[], sized: Fill[]) {
  const usual = median(sized.flatMap(({ writeNs }) => writeNs));
  const places = growing[0]?.grew ?? [];
  if (places.length === 0) throw new Error("the ring did not grow");
  const added = places.map((place) => median(at(growing, place)) - median(at(sized, place)));
  const worst = (usual + Math.max(...added)) / usual;
  const row = (shown: string, all: Fill[]) => {
    const writes = all.flatMap(({ writeNs }) => writeNs);
    return [
      `${kind}, ${shown}`,
      us(median(writes)),
      us(quantile(writes, 0.99)),
      us(Math.max(...writes)),
    ];
  };
  const grew = growing.flatMap((fill) => fill.grew.map((place) => fill.writeNs[place] ?? 0));
  return {
    worst,
    rows: [
      row("every write of a growing ring", growing),
      [
        `${kind}, those in which it grew`,
        us(median(grew)),
        us(quantile(grew, 0.99)),
        us(Math.max(...grew)),
      ],
      row("every write of a ring of the size", sized),
    ],
    growths: places.map((place, which) => [
      `${kind}, write ${place + 1}`,
      us(median(at(growing, place))),
      us(median(at(sized, place))),
      us(added[which] ?? 0),
    ]),
  };
}

async function run(effort: Effort): Promise<Section> {
  const findings = await inTurns(
    [
      { name: "few", trial: () => resized(few) },
      { name: "many", trial: () => resized(many) },
    ],
    effort,
  );
  const cold: Record<string, Fill[]> = { growing: [], sized: [] };
  const warm: Record<string, Fill[]> = { growing: [], sized: [] };
  for (let round = 0; round < effort.rounds; round += 1) {
    cold.growing?.push(...(await fills([], 2)));
    cold.sized?.push(...(await fills(["--sized"], 2)));
    warm.growing?.push(...(await fills(["--warm"], 5)));
    warm.sized?.push(...(await fills(["--warm", "--sized"], 5)));
  }
  const inCold = compared("cold", cold.growing ?? [], cold.sized ?? []);
  const inWarm = compared("warm", warm.growing ?? [], warm.sized ?? []);

  const held: Record<string, string> = { few: "1.2 MB held", many: "256 MB held" };
  const quantities: Record<string, string> = {
    expand: "growing, the ring's own counter",
    shrink: "shrinking, the ring's own counter",
    growing: "a publish that grows the ring (no payload)",
    steady: "a publish that does not",
  };
  const rows = Object.entries(quantities).flatMap(([quantity, shown]) =>
    ["few", "many"].map((name) => {
      const found = summary(findings, name, quantity);
      const range = `${figures(found.lowest)} – ${figures(found.highest)}`;
      return [`${shown}, ${held[name]}`, figures(found.median), figures(found.p99), range];
    }),
  );
  const of = (name: string, quantity: string) => summary(findings, name, quantity).median;
  const added = (name: string) => of(name, "growing") - of(name, "steady");
  const nanoseconds = (ns: number) => `${figures(ns)} ns`;
  const verdicts: Verdict[] = ["few", "many"].flatMap((name) => [
    below(`resize, ring's counter, ${held[name]}`, of(name, "expand"), 1000, "< 1 µs", nanoseconds),
    below(`resize, caller's clock, ${held[name]}`, added(name), 1000, "< 1 µs", nanoseconds),
  ]);
  const ratio = (quantity: string) => of("many", quantity) / of("few", quantity);
  verdicts.push(
    atMost("resize, 256 MB against 1.2 MB held, ring's counter", ratio("expand"), 1.5, times),
    atMost("resize, 256 MB against 1.2 MB held, caller's clock", ratio("growing"), 1.5, times),
    atMost("a write with a resize, cold, against the median write", inCold.worst, 2, times),
    atMost("a write with a resize, warm, against the median write", inWarm.worst, 2, times),
  );
  return {
    title: "Resize, in process",
    about:
      "Frames of 614400 bytes. By the caller's clock a resize is what a publish that grows the " +
      "ring takes longer than one that does not. A write is claim, memcpy, publish; what a resize " +
      "adds to it is taken against the write at the same place of a fill into a ring that has the " +
      "size already, with the same memory: both new (cold, after a second of calm), or both used " +
      "before (warm).",
    tables: [
      { columns: ["", "median ns", "p99 ns", "trials"], rows },
      {
        columns: ["writes until 256 MB are held", "median µs", "p99 µs", "longest µs"],
        rows: [...inCold.rows, ...inWarm.rows],
      },
      {
        columns: ["writes in which the ring grew", "median µs", "of a sized ring", "added µs"],
        rows: [...inCold.growths, ...inWarm.growths],
      },
    ],
    verdicts,
  };
}

export const bench: Bench = { name: "resize", run };
