// One producer, one consumer, through the device by write(2) and read(2), and by other ways.
//
//   frame_source ── write(2) ──▶ ┌────────┐ ── read(2) ──▶ frame_sink
//   out of a user buffer         │ device │               into a user buffer
//                                └────────┘
//   Both buffers walk over 64 MB. The source writes a stamp into each frame, the sink reads it.
//
//   at once        both run; a frame's cost is elapsed ÷ frames, as the sink sees it
//   write alone    there is no consumer; a call's time
//   into growth    a consumer takes nothing yet, the ring grows; a call's time
//   read alone     the frames lie ready; a call's time
import type { Bench, Section, Verdict } from "./support/bench.js";
import { figures, times } from "./support/bench.js";
import { client } from "./support/clients.js";
import {
  calls,
  complete,
  type Picture,
  quiet,
  shared,
  sink,
  source,
  uhd,
  vga,
  withDaemon,
} from "./support/device.js";
import { hasFuseUring, noFuseUring } from "./support/fuse-uring.js";
import { gstreamerTrial, hasGstreamer } from "./support/gstreamer.js";
import type { Summary } from "./support/statistics.js";
import { type Contender, inTurns, type Quantities, summary } from "./support/trials.js";

const tight = "device, dynamic_buffer_max of 4 frames";

/** Source and sink at once. */
async function flow(picture: Picture, words: string[]): Promise<Quantities> {
  return withDaemon([...picture.words, ...words], async (daemon) => {
    const amount = ["--frames", picture.flow.frames, "--warmup", picture.flow.warmup];
    const producer = await source(daemon, picture, amount);
    const consumer = await sink(daemon, amount);
    producer.go();
    const [sent, received] = await Promise.all([producer.done(), complete(consumer)]);
    return { frame: shared(received), write: calls(sent), read: calls(received) };
  });
}

/** Each side while the other does nothing. */
async function alone(picture: Picture): Promise<Quantities> {
  return withDaemon(picture.words, async (daemon) => {
    const unheard = await source(daemon, picture, ["--frames", picture.held, "--warmup", 10]);
    unheard.go();
    const written = await unheard.done();
    await quiet(daemon);
    const producer = await source(daemon, picture, ["--frames", picture.held]);
    const warmup = Math.floor(picture.held / 10);
    const consumer = await sink(daemon, [
      ...["--frames", picture.held - warmup, "--warmup", warmup, "--wait"],
    ]);
    producer.go();
    const held = await producer.done();
    consumer.go();
    const read = await complete(consumer);
    return { write: calls(written), growing: calls(held), read: calls(read) };
  });
}

function transport(way: string, picture: Picture): Contender {
  return {
    name: way,
    async trial() {
      const { warmup, frames } = picture.flow;
      const bytes = ["--bytes", picture.bytes, "--frames", frames, "--warmup", warmup];
      const running = client("transport", [way, ...bytes]);
      const received = await running.done();
      const found: Quantities = { frame: shared(received), call: calls(received) };
      if (["pipe", "unix", "fuse", "fuse-uring"].includes(way)) {
        found.read = found.call as Quantities[string];
        found.write = calls(await running.event("sent"));
      }
      return found;
    },
  };
}

function contenders(picture: Picture): Contender[] {
  const fourFrames = `dynamic_buffer_max=${4 * picture.bytes}`;
  const all: Contender[] = [
    transport("memcpy", picture),
    transport("cached", picture),
    { name: "device", trial: () => flow(picture, []) },
    transport("unix", picture),
    transport("fuse", picture),
    { name: "alone", trial: () => alone(picture) },
    transport("tmpfs", picture),
    { name: tight, trial: () => flow(picture, [fourFrames]) },
    transport("pipe", picture),
  ];
  if (hasFuseUring()) all.push(transport("fuse-uring", picture));
  if (hasGstreamer()) {
    const frames = picture.flow.frames;
    const trial = async () => ({ frame: await gstreamerTrial(picture.bytes, frames) });
    all.push({ name: "GStreamer", trial });
  }
  return all;
}

const shown: Record<string, string> = {
  memcpy: "memcpy, 64 MB to 64 MB",
  cached: "memcpy, the same two buffers always",
  device: "device, write(2) → read(2)",
  unix: "unix stream socket",
  fuse: "a file served by FUSE: no ring, no V4L2",
  "fuse-uring": "the same file, its requests by io_uring",
  tmpfs: "tmpfs, pwrite + pread in one process",
  pipe: "pipe of 1 MiB",
  GStreamer: "GStreamer shmsink → shmsrc, mapped by the reader",
};

async function measure(picture: Picture, effort: { quick: boolean; rounds: number }) {
  const all = contenders(picture);
  const findings = await inTurns(all, effort);
  const memcpy = summary(findings, "memcpy", "frame");
  const us = (ns: number) => figures(ns / 1000);
  const call = (found: Summary | undefined) =>
    found === undefined ? "" : `${us(found.median)} / ${us(found.p99)}`;
  const throughput = all
    .filter(({ name }) => name !== "alone")
    .map(({ name }) => {
      const found = summary(findings, name, "frame");
      return [
        shown[name] ?? name,
        us(found.median),
        `${us(found.lowest)} – ${us(found.highest)}`,
        figures(found.median / memcpy.median),
        call(findings.get(name)?.write),
        call(findings.get(name)?.read),
      ];
    });
  if (!hasFuseUring())
    throughput.push([shown["fuse-uring"] ?? "", `not measured: ${noFuseUring}`, "", "", "", ""]);
  if (!hasGstreamer()) throughput.push([shown.GStreamer ?? "", "not installed", "", "", "", ""]);
  const copied = summary(findings, "memcpy", "call");
  const single = [
    ["write(2), no consumer", summary(findings, "alone", "write")] as const,
    ["write(2), into a ring that grows", summary(findings, "alone", "growing")] as const,
    ["read(2), the frame lies ready", summary(findings, "alone", "read")] as const,
    ["memcpy", copied] as const,
  ].map(([name, found]) => [
    name,
    us(found.median),
    us(found.p99),
    `${us(found.lowest)} – ${us(found.highest)}`,
    figures(found.median / copied.median),
  ]);
  return { findings, copied, throughput, single };
}

async function run(effort: { quick: boolean; rounds: number }): Promise<Section> {
  const small = await measure(vga, effort);
  const large = await measure(uhd, effort);
  const frame = (from: typeof small, name: string) => summary(from.findings, name, "frame").median;
  const faster = (from: typeof small, than: string, factor: number, bytes: number): Verdict => {
    const ratio = frame(from, "device") / frame(from, than);
    return {
      what: `write(2) → read(2), ${bytes} bytes, against ${than}`,
      reach: factor === 1 ? "< 1 ×" : `≤ ${times(1 / factor)}`,
      found: times(ratio),
      reached: factor === 1 ? ratio < 1 : ratio <= 1 / factor,
    };
  };
  const direction = (what: string, quantity: string): Verdict => {
    const ratio = summary(large.findings, "alone", quantity).median / large.copied.median;
    return {
      what: `${what}, ${uhd.bytes} bytes, against memcpy`,
      reach: `≤ ${times(4)}`,
      found: times(ratio),
      reached: ratio <= 4,
    };
  };
  const columns = (bytes: number) => [
    `${bytes} bytes, both sides at once`,
    "µs a frame",
    "trials",
    "÷ memcpy",
    "write call, median / p99 µs",
    "read call, median / p99 µs",
  ];
  const singles = (bytes: number) => [
    `${bytes} bytes, one side alone`,
    "median µs",
    "p99 µs",
    "trials",
    "÷ memcpy",
  ];
  return {
    title: "1P1C: write(2) → read(2)",
    about:
      "A producer and a consumer process and the daemon. Frames are sent out of a user buffer and " +
      "received into one; both walk over 64 MB, also for memcpy and the other ways.",
    tables: [
      { columns: columns(vga.bytes), rows: small.throughput },
      { columns: singles(vga.bytes), rows: small.single },
      { columns: columns(uhd.bytes), rows: large.throughput },
      { columns: singles(uhd.bytes), rows: large.single },
    ],
    verdicts: [
      faster(small, "pipe", 1, vga.bytes),
      faster(small, "tmpfs", 1, vga.bytes),
      faster(small, "unix", 1, vga.bytes),
      direction("write(2)", "write"),
      direction("read(2)", "read"),
      faster(large, "pipe", 2, uhd.bytes),
    ],
    notes: [small, large].map((from) => {
      const ratio = times(frame(from, "device") / frame(from, "fuse"));
      return `The device takes ${ratio} as long as a file served by FUSE that does nothing else (bench/programs/bare_fuse.h), with ${from === small ? vga.bytes : uhd.bytes} bytes.`;
    }),
  };
}

export const bench: Bench = { name: "1p1c", run };
