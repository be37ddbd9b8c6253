// Memory over a bursty load: bench/load/*.txt, 2 s at 5 times the reader's pace, 10 s of calm.
//
//   owed      ╱╲            ╱╲                 A static ring that loses nothing has room for the
//            ╱  ╲          ╱  ╲                peak all the time. Ours is resident for what is
//           ╱     ╲       ╱     ╲              owed, and for as long as giving back takes.
//   ───────╱        ╲────╱        ╲────
//          2 s   10 s
//
//   The static ring: the most that was owed, one frame being written and one being read.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import {
  atMost,
  type Bench,
  type Effort,
  figures,
  megabytes,
  percent,
  type Section,
} from "./support/bench.js";
import { client } from "./support/clients.js";
import { complete, number, vga, withDaemon } from "./support/device.js";
import { residentBytes } from "./support/processor.js";
import { mean } from "./support/statistics.js";

const cycle = { seconds: 12, frames: 2 * 150 + 10 * 3 };
const sampleMs = 100;
const loads = [
  { file: "steady-reader.txt", shown: "a reader of a steady pace" },
  { file: "catching-up.txt", shown: "a reader that catches up between bursts" },
];

interface Sample {
  used: number;
  resident: number;
  process: number;
}

interface Found {
  shown: string;
  samples: Sample[];
  expandCount: number;
  idle: number;
}

async function underLoad(load: (typeof loads)[number], cycles: number): Promise<Found> {
  return withDaemon([], async (daemon) => {
    const path = join(import.meta.dirname, "load", load.file);
    const frames = cycles * cycle.frames;
    const words = ["--frames", frames, "--load", path, "--wait"];
    const patience = { patienceMs: (cycles * cycle.seconds + 120) * 1000 };
    const producer = client(
      "frame_source",
      [daemon.dev(number), "--size", vga.size, ...words],
      patience,
    );
    await producer.event("ready");
    const consumer = client("frame_sink", [daemon.dev(number), ...words], patience);
    await consumer.event("ready");
    const idle = residentBytes(daemon.pid);
    const samples: Sample[] = [];
    const counters = async () => {
      const text = await readFile(daemon.attribute(number, "dynamic_buffer_counters"), "utf8");
      return Object.fromEntries(
        text.split("\n").map((line) => {
          const [name = "", value] = line.split(" ");
          return [name, Number(value)];
        }),
      );
    };
    producer.go();
    consumer.go();
    const end = performance.now() + cycles * cycle.seconds * 1000;
    for (let due = performance.now(); due < end; due += sampleMs) {
      await new Promise((resolve) => setTimeout(resolve, Math.max(due - performance.now(), 0)));
      const { used = 0, resident = 0 } = await counters();
      samples.push({ used, resident, process: residentBytes(daemon.pid) });
    }
    await Promise.all([producer.done(), complete(consumer)]);
    const { expand_count: expandCount = 0, dropped_frames: dropped } = await counters();
    if (dropped !== 0) throw new Error(`${load.file}: ${dropped} frames were lost`);
    return { shown: load.shown, samples, expandCount, idle };
  });
}

async function run(effort: Effort): Promise<Section> {
  const cycles = effort.quick ? 2 : 25;
  // Each needs a small part of a processor: both at once.
  const found = await Promise.all(loads.map((load) => underLoad(load, cycles)));
  const rows: string[][] = [];
  const verdicts = [];
  const notes: string[] = [];
  for (const { shown, samples, idle, expandCount } of found) {
    const owed = samples.map((each) => each.used);
    const peak = Math.max(...owed);
    const fixed = peak + 2 * vga.bytes;
    const resident = mean(samples.map((each) => each.resident));
    const process = mean(samples.map((each) => each.process)) - idle;
    const cell = (bytes: number) => `${megabytes(bytes)}, ${percent(bytes / fixed)}`;
    rows.push([
      shown,
      megabytes(fixed),
      cell(mean(owed)),
      cell(resident),
      cell(process),
      figures(expandCount),
    ]);
    verdicts.push(
      atMost(
        `mean resident memory, ${shown}, against a static ring`,
        resident / fixed,
        0.25,
        percent,
      ),
    );
    if (mean(owed) / fixed > 0.25) {
      notes.push(
        `With ${shown}, what it is owed comes to ${percent(mean(owed) / fixed)} of the static ring ` +
          "on average: no ring that loses nothing can have less resident.",
      );
    }
  }
  const minutes = (cycles * cycle.seconds) / 60;
  return {
    title: "Memory over a bursty load",
    about:
      `640x480 YUYV, ${figures(minutes)} minutes (${cycles} bursts)` +
      `${effort.quick ? ", scaled down from 5 minutes" : ""}, no frame lost. Sampled every ` +
      `${sampleMs} ms; resident is the ring's counter, and the daemon's resident set less that ` +
      "before the load.",
    tables: [
      {
        columns: ["", "static ring", "owed, mean", "resident, mean", "process, mean", "growths"],
        rows,
      },
    ],
    verdicts,
    notes,
  };
}

export const bench: Bench = { name: "memory", run };
