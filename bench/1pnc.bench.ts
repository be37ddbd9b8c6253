// One producer and 1, 2, 4, 8, 16 consumers: what each more of them costs.
//
//                                ┌────────┐ ── read(2) ──▶ frame_sink
//   frame_source ── write(2) ──▶ │ device │ ── read(2) ──▶ frame_sink
//                                └────────┘ ── … up to 16 of them
//
//   Everybody goes as fast as the slowest lets them: the ring holds 16 frames. Counted is processor
//   time, the daemon's and all clients', for each frame delivered.
import { type Bench, type Effort, figures, type Section, times } from "./support/bench.js";
import { complete, sink, source, vga, withDaemon } from "./support/device.js";
import { processorNs } from "./support/processor.js";
import type { Trial } from "./support/statistics.js";
import { inTurns, type Quantities, summary } from "./support/trials.js";

const counts = [1, 2, 4, 8, 16];
const words = [`dynamic_buffer_max=${16 * vga.bytes}`, "max_openers=40"];

const one = (value: number): Trial => ({ median: value, p99: value });

async function delivered(consumers: number, frames: number): Promise<Quantities> {
  return withDaemon(words, async (daemon) => {
    const producer = await source(daemon, vga, ["--frames", frames]);
    const readers = [];
    for (let each = 0; each < consumers; each += 1) {
      readers.push(await sink(daemon, ["--frames", frames]));
    }
    const before = processorNs(daemon.pid);
    producer.go();
    const [sent, ...received] = await Promise.all([producer.done(), ...readers.map(complete)]);
    const daemonNs = processorNs(daemon.pid) - before;
    const clientsNs = [sent, ...received].reduce((sum, line) => sum + line.cpuNs, 0);
    const deliveries = frames * consumers;
    return {
      frame: one((daemonNs + clientsNs) / deliveries),
      daemon: one(daemonNs / deliveries),
      published: one(sent.elapsedNs / frames),
    };
  });
}

async function run(effort: Effort): Promise<Section> {
  const deliveries = effort.quick ? 1600 : 4800;
  const findings = await inTurns(
    counts.map((consumers) => ({
      name: String(consumers),
      trial: () => delivered(consumers, deliveries / consumers),
    })),
    { ...effort, rounds: Math.min(effort.rounds, 5) },
  );
  const of = (consumers: number, quantity: string) =>
    summary(findings, String(consumers), quantity);
  const first = of(1, "frame").median;
  const rows = counts.map((consumers, which) => {
    const frame = of(consumers, "frame");
    const fewer = counts[which - 1];
    // Of a published frame: what one more consumer costs.
    const more =
      fewer === undefined
        ? ""
        : figures(
            (consumers * frame.median - fewer * of(fewer, "frame").median) /
              (consumers - fewer) /
              1000,
          );
    return [
      String(consumers),
      figures(frame.median / 1000),
      `${figures(frame.lowest / 1000)} – ${figures(frame.highest / 1000)}`,
      figures(of(consumers, "daemon").median / 1000),
      figures(frame.median / vga.bytes),
      figures(frame.median / first),
      more,
      figures(of(consumers, "published").median / 1000),
    ];
  });
  const ratio = of(16, "frame").median / first;
  return {
    title: "1P1C … 1P16C: growth of cost with consumers",
    about:
      `Frames of ${vga.bytes} bytes, ${deliveries} deliveries a trial. Processor time of the ` +
      "daemon and of all clients, divided by the frames that were delivered.",
    tables: [
      {
        columns: [
          "consumers",
          "processor µs a delivered frame",
          "trials",
          "the daemon's part",
          "ns a delivered byte",
          "÷ one consumer",
          "µs for one consumer more",
          "µs elapsed a published frame",
        ],
        rows,
      },
    ],
    verdicts: [
      {
        what: "processor time of a delivered frame, 16 consumers against 1",
        reach: "≤ 1.1 × (linear in bytes delivered)",
        found: times(ratio),
        reached: ratio <= 1.1,
      },
    ],
  };
}

export const bench: Bench = { name: "1pnc", run };
