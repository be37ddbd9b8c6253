// Two producers, one consumer, all at once; beside it one producer with as many frames.
//
//   frame_source ── write(2) ──▶ ┌────────┐
//                                │ device │ ── read(2) ──▶ frame_sink
//   frame_source ── write(2) ──▶ └────────┘
//
//   640x480 YUYV. The sink sees that each producer's frames all come, in order.
import { type Bench, type Effort, figures, type Section } from "./support/bench.js";
import { calls, complete, shared, sink, source, vga, withDaemon } from "./support/device.js";
import { inTurns, type Quantities, summary } from "./support/trials.js";

async function flow(producers: number): Promise<Quantities> {
  return withDaemon(vga.words, async (daemon) => {
    const { warmup, frames } = vga.flow;
    const each = (warmup + frames) / producers;
    const sources = [];
    for (let id = 0; id < producers; id += 1) {
      sources.push(await source(daemon, vga, ["--frames", each, "--id", id]));
    }
    const consumer = await sink(daemon, ["--frames", frames, "--warmup", warmup]);
    for (const { go } of sources) go();
    const [received, sent] = await Promise.all([
      complete(consumer),
      Promise.all(sources.map((one) => one.done())),
    ]);
    const writes = calls({ callNs: sent.flatMap((line) => line.callNs) });
    return { frame: shared(received), write: writes };
  });
}

async function run(effort: Effort): Promise<Section> {
  const findings = await inTurns(
    [1, 2].map((producers) => ({ name: String(producers), trial: () => flow(producers) })),
    effort,
  );
  const one = summary(findings, "1", "frame").median;
  return {
    title: "2P1C: two producers",
    about: `Frames of ${vga.bytes} bytes, both sides at once; the same number of frames in all.`,
    tables: [
      {
        columns: ["producers", "µs a frame", "trials", "÷ one", "write call, median / p99 µs"],
        rows: ["1", "2"].map((producers) => {
          const frame = summary(findings, producers, "frame");
          const write = summary(findings, producers, "write");
          return [
            producers,
            figures(frame.median / 1000),
            `${figures(frame.lowest / 1000)} – ${figures(frame.highest / 1000)}`,
            figures(frame.median / one),
            `${figures(write.median / 1000)} / ${figures(write.p99 / 1000)}`,
          ];
        }),
      },
    ],
    verdicts: [],
  };
}

export const bench: Bench = { name: "2p1c", run };
