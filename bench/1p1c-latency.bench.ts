// How soon a consumer that waits has a frame.
//
//   frame_source ── write(2) or QBUF, 60 a second ──▶ device ──▶ DQBUF, blocked ──▶ frame_sink
//        │                                     │                     │
//      sends                               publishes              returns
//        └───────────── from sending ──────────┼─────────────────────┤
//                                              └── from publishing ──┘
//
//   Publishing is the frame's V4L2 timestamp. Between two frames everybody sleeps. Beside it, what
//   waking a reader costs here without us: a stamp of 64 bytes through a pipe, and through a file
//   served by FUSE that does nothing else, at the same pace.
import { type Bench, type Effort, figures, microseconds, type Section } from "./support/bench.js";
import { client } from "./support/clients.js";
import { complete, sink, source, vga, withDaemon } from "./support/device.js";
import { hasFuseUring, noFuseUring } from "./support/fuse-uring.js";
import { trialOf } from "./support/statistics.js";
import { type Contender, inTurns, type Quantities, summary } from "./support/trials.js";

const fps = 60;
const warmup = 20;

async function woken(method: string, frames: number): Promise<Quantities> {
  return withDaemon([], async (daemon) => {
    const amount = ["--frames", frames, "--warmup", warmup];
    const producer = await source(daemon, vga, [...amount, "--fps", fps, "--method", method]);
    const consumer = await sink(daemon, [...amount, "--method", "mmap"]);
    producer.go();
    const [, line] = await Promise.all([producer.done(), complete(consumer)]);
    return { published: trialOf(line.ageNs), sent: trialOf(line.sentNs) };
  });
}

function wokenBy(way: string, frames: number): Contender {
  return {
    name: way,
    async trial() {
      const amount = ["--bytes", 64, "--frames", frames, "--warmup", warmup];
      const line = await client("transport", [way, ...amount, "--fps", fps]).done();
      return { sent: trialOf(line.sentNs) };
    },
  };
}

async function run(effort: Effort): Promise<Section> {
  const frames = effort.quick ? 120 : 300;
  const findings = await inTurns(
    [
      wokenBy("wake", frames),
      { name: "write", trial: () => woken("write", frames) },
      { name: "mmap", trial: () => woken("mmap", frames) },
      wokenBy("fuse", frames),
      ...(hasFuseUring() ? [wokenBy("fuse-uring", frames)] : []),
    ],
    { ...effort, rounds: Math.min(effort.rounds, 5) },
  );
  const us = (ns: number) => figures(ns / 1000);
  const row = (shown: string, name: string, quantity: string) => {
    const found = summary(findings, name, quantity);
    const wake = summary(findings, "wake", "sent");
    return [
      shown,
      us(found.median),
      us(found.p99),
      `${us(found.lowest)} – ${us(found.highest)}`,
      figures(found.median / wake.median),
    ];
  };
  const found = summary(findings, "write", "published");
  return {
    title: "1P1C: publish → DQBUF returns",
    about: `640x480 YUYV at ${fps} frames a second, ${frames} frames a trial; the consumer is blocked in DQBUF.`,
    tables: [
      {
        columns: ["", "median µs", "p99 µs", "trials' medians", "÷ pipe"],
        rows: [
          row("publish → DQBUF returns, producer write(2)s", "write", "published"),
          row("publish → DQBUF returns, producer streams by mmap", "mmap", "published"),
          row("write(2) begins → DQBUF returns", "write", "sent"),
          row("QBUF begins → DQBUF returns", "mmap", "sent"),
          row("64 bytes through a pipe, write → read returns", "wake", "sent"),
          row("64 bytes through a file served by FUSE", "fuse", "sent"),
          hasFuseUring()
            ? row("the same file, its requests by io_uring", "fuse-uring", "sent")
            : [
                "the same file, its requests by io_uring",
                `not measured: ${noFuseUring}`,
                "",
                "",
                "",
              ],
        ],
      },
    ],
    verdicts: [
      {
        what: "publish → DQBUF returns, median",
        reach: `≤ ${microseconds(60_000)}`,
        found: microseconds(found.median),
        reached: found.median <= 60_000,
      },
      {
        what: "publish → DQBUF returns, p99",
        reach: `≤ ${microseconds(200_000)}`,
        found: microseconds(found.p99),
        reached: found.p99 <= 200_000,
      },
    ],
  };
}

export const bench: Bench = { name: "1p1c-latency", run };
