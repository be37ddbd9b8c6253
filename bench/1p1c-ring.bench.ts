// The ring alone: one process, one thread, nobody waits.
//
//   a user buffer ── memcpy ──▶ ┌─────────────┐ ── memcpy ──▶ a user buffer
//       claim … publish         │ ring (slot) │        take … release
//                               └─────────────┘
//
//   Beside it the same two memcpys through one buffer. Both user buffers walk over 64 MB.
import { atMost, type Bench, type Effort, figures, type Section, times } from "./support/bench.js";
import { client } from "./support/clients.js";
import { calls } from "./support/device.js";
import { inTurns, summary } from "./support/trials.js";

const pictures = [
  { bytes: 614400, frames: 3000, warmup: 300 },
  { bytes: 16588800, frames: 100, warmup: 20 },
];

async function run(effort: Effort): Promise<Section> {
  const rows: string[][] = [];
  const verdicts = [];
  const us = (ns: number) => figures(ns / 1000);
  for (const { bytes, frames, warmup } of pictures) {
    const trial = (what: string, ...more: string[]) => ({
      name: [what, ...more].join(" "),
      async trial() {
        const amount = ["--bytes", bytes, "--frames", frames, "--warmup", warmup];
        return { frame: calls(await client("ring_bench", [what, ...amount, ...more]).done()) };
      },
    });
    const contenders = [
      trial("copies"),
      trial("pass", "--mode", "dynamic"),
      trial("pass", "--mode", "static"),
      trial("pass", "--no-copy"),
    ];
    const findings = await inTurns(contenders, effort);
    const baseline = summary(findings, "copies", "frame").median;
    const row = (shown: string, name: string) => {
      const found = summary(findings, name, "frame");
      rows.push([
        `${shown}, ${bytes} bytes`,
        us(found.median),
        us(found.p99),
        `${us(found.lowest)} – ${us(found.highest)}`,
        figures(found.median / baseline),
      ]);
    };
    row("two memcpys through one buffer", "copies");
    row("ring, dynamic", "pass --mode dynamic");
    row("ring, static", "pass --mode static");
    row("ring, dynamic, no copies", "pass --no-copy");
    const ratio = summary(findings, "pass --mode dynamic", "frame").median / baseline;
    verdicts.push(atMost(`ring alone, ${bytes} bytes, against its memcpys`, ratio, 1.15, times));
  }
  return {
    title: "1P1C: the ring alone, in process",
    about: "claim, memcpy in, publish, take, memcpy out, release; one thread.",
    tables: [{ columns: ["", "median µs", "p99 µs", "trials", "÷ memcpys"], rows }],
    verdicts,
  };
}

export const bench: Bench = { name: "1p1c-ring", run };
