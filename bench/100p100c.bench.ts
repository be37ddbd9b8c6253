// A hundred devices, each with a producer and a consumer, at 30 frames a second.
//
//   many_devices source                                      many_devices sink
//     thread 1   ── write(2) ──▶  device 100  ── DQBUF ──▶   thread 1
//     thread 2   ── write(2) ──▶  device 101  ── DQBUF ──▶   thread 2
//        …                            …                         …
//     thread 100 ── write(2) ──▶  device 199  ── DQBUF ──▶   thread 100
//
//   640x480 YUYV. Every device's frames come at a moment of their own. Each frame carries a number;
//   the sink counts the frames, and those whose number is not the next one.
import { cpus } from "node:os";
import {
  type Bench,
  type Effort,
  figures,
  megabytes,
  percent,
  type Section,
} from "./support/bench.js";
import { client } from "./support/clients.js";
import { vga, withDaemon } from "./support/device.js";
import { processorNs, residentBytes } from "./support/processor.js";
import { median, quantile } from "./support/statistics.js";

const devices = 100;
const first = 100;
const fps = 30;
/** A machine that falls behind is not to be filled with what it owes: at most 3.2 GB. */
const most = 32 << 20;

async function run(effort: Effort): Promise<Section> {
  const seconds = effort.quick ? 5 : 20;
  const frames = seconds * fps;
  const numbers = Array.from({ length: devices }, (_, at) => first + at).join(",");
  const words = [`devices=${devices}`, `video_nr=${numbers}`, `dynamic_buffer_max=${most}`];
  return withDaemon(words, async (daemon) => {
    const path = daemon.dev(first).slice(0, -String(first).length);
    const amount = [
      ...["--path", path, "--first", first, "--devices", devices],
      ...["--frames", frames, "--fps", fps],
    ];
    const producers = client("many_devices", ["source", ...amount]);
    const consumers = client("many_devices", ["sink", ...amount]);
    await Promise.all([producers.event("ready"), consumers.event("ready")]);
    const before = processorNs(daemon.pid);
    consumers.go();
    producers.go();
    const [sent, received] = await Promise.all([producers.done(), consumers.done()]);
    const daemonNs = processorNs(daemon.pid) - before;
    const expected = devices * frames;
    const processors = cpus().length;
    const all = daemonNs + sent.cpuNs + received.cpuNs;
    const elapsed: number = received.elapsedNs;
    const ages = (received.ageNs as number[][]).flat();
    const cell = (ns: number) => [
      figures(ns / 1e9),
      percent(ns / elapsed / processors),
      percent(ns / all),
      figures(ns / expected / 1000),
    ];
    const row = (shown: string, ns: number) => [shown, ...cell(ns)];
    return {
      title: `${devices} devices, ${devices} producers, ${devices} consumers`,
      about:
        `640x480 YUYV at ${fps} frames a second for ${seconds} s, on ${processors} processors: ` +
        `${expected} frames, ${megabytes((expected * vga.bytes) / seconds)} a second each way. ` +
        "Producers write(2), consumers stream by mmap; two processes of 100 threads each.",
      tables: [
        {
          columns: ["processor time", "s", "of the machine", "part", "µs a frame"],
          rows: [
            row("the daemon", daemonNs),
            row("producers", sent.cpuNs),
            row("consumers", received.cpuNs),
            row("all", all),
          ],
        },
        {
          columns: ["", ""],
          rows: [
            ["frames sent", String(expected)],
            ["frames delivered", String(received.frames)],
            ["not the next one", String(received.gaps)],
            ["took, of the planned time", percent(elapsed / 1e9 / seconds)],
            [
              "publish → DQBUF returns, median / p99 µs",
              `${figures(median(ages) / 1000)} / ${figures(quantile(ages, 0.99) / 1000)}`,
            ],
            ["the daemon's resident memory", megabytes(residentBytes(daemon.pid))],
          ],
        },
      ],
      verdicts: [
        {
          what: `${devices} devices at 30 frames a second: frames delivered`,
          reach: `${expected} of ${expected}`,
          found: `${received.frames - received.gaps} of ${expected}`,
          reached: received.frames === expected && received.gaps === 0,
        },
        {
          what: `${devices} devices: in time`,
          reach: "≤ 101 % of the planned time",
          found: percent(elapsed / 1e9 / seconds),
          reached: elapsed / 1e9 / seconds <= 1.01,
        },
      ],
    };
  });
}

export const bench: Bench = { name: "100p100c", run };
