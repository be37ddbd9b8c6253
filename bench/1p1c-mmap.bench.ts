// One consumer that maps its buffers, while frames lie ready.
//
//   ┌──────┐  copy   ┌────────────────┐
//   │ ring │ ──────▶ │ its own buffer │ ── DQBUF ──▶ frame_sink ── QBUF ──▶ …
//   └──────┘         └────────────────┘
//
//   The ring was filled before; nobody writes meanwhile. A frame's cost is elapsed ÷ frames of
//   DQBUF, a look at the frame's first bytes, and QBUF; the copy is the daemon's.
import { atMost, type Bench, type Effort, figures, type Section, times } from "./support/bench.js";
import { client } from "./support/clients.js";
import {
  calls,
  complete,
  type Picture,
  shared,
  sink,
  source,
  uhd,
  vga,
  withDaemon,
} from "./support/device.js";
import { inTurns, type Quantities, summary } from "./support/trials.js";

async function taken(picture: Picture): Promise<Quantities> {
  return withDaemon(picture.words, async (daemon) => {
    const producer = await source(daemon, picture, ["--frames", picture.held]);
    const warmup = Math.max(Math.floor(picture.held / 10), 5);
    const consumer = await sink(daemon, [
      ...["--method", "mmap", "--frames", picture.held - warmup, "--warmup", warmup, "--wait"],
    ]);
    producer.go();
    await producer.done();
    consumer.go();
    const line = await complete(consumer);
    return { frame: shared(line), call: calls(line) };
  });
}

async function copied(picture: Picture): Promise<Quantities> {
  const { warmup, frames } = picture.flow;
  const line = await client("transport", [
    "memcpy",
    ...["--bytes", picture.bytes, "--frames", frames, "--warmup", warmup],
  ]).done();
  return { frame: shared(line), call: calls(line) };
}

async function run(effort: Effort): Promise<Section> {
  const rows: string[][] = [];
  const us = (ns: number) => figures(ns / 1000);
  let ratio = 0;
  for (const picture of [vga, uhd]) {
    const findings = await inTurns(
      [
        { name: "memcpy", trial: () => copied(picture) },
        { name: "DQBUF + QBUF", trial: () => taken(picture) },
      ],
      effort,
    );
    const baseline = summary(findings, "memcpy", "frame").median;
    for (const name of ["DQBUF + QBUF", "memcpy"]) {
      const frame = summary(findings, name, "frame");
      const call = summary(findings, name, "call");
      rows.push([
        `${name}, ${picture.bytes} bytes`,
        us(frame.median),
        `${us(frame.lowest)} – ${us(frame.highest)}`,
        `${us(call.median)} / ${us(call.p99)}`,
        figures(frame.median / baseline),
      ]);
    }
    ratio = summary(findings, "DQBUF + QBUF", "frame").median / baseline;
  }
  return {
    title: "1P1C: CAPTURE by mmap",
    about:
      "Frames lie ready in the ring; a consumer with four mapped buffers takes them by DQBUF and " +
      "gives each buffer back by QBUF. memcpy walks over 64 MB.",
    tables: [
      {
        columns: ["", "µs a frame", "trials", "calls, median / p99 µs", "÷ memcpy"],
        rows,
      },
    ],
    verdicts: [atMost(`CAPTURE by mmap, ${uhd.bytes} bytes, against memcpy`, ratio, 1.3, times)],
  };
}

export const bench: Bench = { name: "1p1c-mmap", run };
