// What dynamic buffering costs a frame where nothing is resized: instructions, counted.
//
//   claim ─ memcpy in ─ publish ─ take ─ memcpy out ─ release        static │ dynamic
//
//   N frames and 2 N frames: the difference is N frames without starting and ending. callgrind
//   counts one instruction for each byte of a `rep movsb`; where the processor's own counter can
//   be read (perf), it is the stricter of the two.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  atMost,
  type Bench,
  type Effort,
  figures,
  percent,
  type Section,
} from "./support/bench.js";
import { programPath } from "./support/clients.js";

type Counter = (words: string[]) => number;

function output(command: string, words: string[]): string {
  const done = spawnSync(command, words, { encoding: "utf8", maxBuffer: 1 << 26 });
  if (done.error !== undefined) throw new Error(`${command}: ${done.error.message}`);
  if (done.status !== 0) throw new Error(`${command} ${words.join(" ")}: ${done.stderr}`);
  return done.stderr;
}

const ringBench = programPath("ring_bench");

function countedByCallgrind(words: string[]): number {
  const folder = mkdtempSync(join(tmpdir(), "v4l2loopback-bench-"));
  try {
    const said = output("valgrind", [
      "--tool=callgrind",
      `--callgrind-out-file=${join(folder, "callgrind")}`,
      ringBench,
      ...words,
    ]);
    const count = /Collected : (\d+)/.exec(said)?.[1];
    if (count === undefined) throw new Error(`callgrind counted nothing: ${said}`);
    return Number(count);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function countedByProcessor(words: string[]): number {
  const said = output("perf", ["stat", "-x,", "-e", "instructions:u", ringBench, ...words]);
  const count = /^(\d+),/m.exec(said)?.[1];
  if (count === undefined) throw new Error(`perf counted nothing: ${said}`);
  return Number(count);
}

function processorCounts(): boolean {
  const words = ["stat", "-x,", "-e", "instructions:u", "true"];
  const done = spawnSync("perf", words, { encoding: "utf8" });
  return done.status === 0 && /^\d+,/m.test(done.stderr);
}

function eachFrame(count: Counter, mode: string, frames: number, more: string[]): number {
  const counted = (amount: number) =>
    count(["pass", "--untimed", "--mode", mode, "--frames", String(amount), ...more]);
  return (counted(2 * frames) - counted(frames)) / frames;
}

async function run(effort: Effort): Promise<Section> {
  const rows: string[][] = [];
  const compare = (shown: string, count: Counter, frames: number, more: string[]) => {
    const fixed = eachFrame(count, "static", frames, more);
    const dynamic = eachFrame(count, "dynamic", frames, more);
    const added = (dynamic - fixed) / fixed;
    const [of, as] = [Math.round(fixed).toString(), Math.round(dynamic).toString()];
    rows.push([shown, of, as, figures(dynamic - fixed), percent(added)]);
    return added;
  };
  // Counts repeat to a few instructions: more frames would tell no more.
  const part = effort.quick ? 1 : 4;
  const what = "dynamic against static, instructions a frame";
  const verdicts = [
    atMost(
      `${what}, callgrind`,
      compare("614400 bytes, callgrind", countedByCallgrind, 100, []),
      0.001,
      percent,
    ),
  ];
  compare("the ring's own, no copies, callgrind", countedByCallgrind, 5000 * part, ["--no-copy"]);
  const notes: string[] = [];
  if (processorCounts()) {
    const added = compare("614400 bytes, processor", countedByProcessor, 500 * part, []);
    verdicts.push(atMost(`${what}, processor`, added, 0.001, percent));
    compare("the ring's own, no copies, processor", countedByProcessor, 5000 * part, ["--no-copy"]);
  } else {
    notes.push("The processor's own counter could not be read here.");
  }
  return {
    title: "1P1C: dynamic against static mode, in instructions",
    about:
      "The ring in process, no resize happening: claim, memcpy in, publish, take, memcpy out, " +
      "release. Counted over N and 2 N frames, and the difference taken.",
    tables: [{ columns: ["instructions a frame", "static", "dynamic", "more", "part"], rows }],
    verdicts,
    notes,
  };
}

export const bench: Bench = { name: "1p1c-instructions", run };
