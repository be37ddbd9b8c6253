// This tree and another commit's, in turns: what a change gave.
//
//   frame_source ──▶ device of this tree   ──▶ frame_sink
//   frame_source ──▶ device of that commit ──▶ frame_sink      … and again
//
//   The programs that produce and consume are this tree's in both cases.
import type { Bench, Effort, Section } from "./support/bench.js";
import { figures } from "./support/bench.js";
import {
  complete,
  type Picture,
  shared,
  sink,
  source,
  uhd,
  vga,
  withDaemon,
} from "./support/device.js";
import { trialOf } from "./support/statistics.js";
import { inTurns, type Quantities, summary } from "./support/trials.js";

type Method = "read" | "mmap";

async function flow(picture: Picture, method: Method): Promise<Quantities> {
  return withDaemon(picture.words, async (daemon) => {
    const amount = ["--frames", picture.flow.frames, "--warmup", picture.flow.warmup];
    const producer = await source(daemon, picture, amount);
    const consumer = await sink(daemon, [...amount, "--method", method]);
    producer.go();
    const [, line] = await Promise.all([producer.done(), complete(consumer)]);
    return { found: shared(line) };
  });
}

async function woken(): Promise<Quantities> {
  return withDaemon([], async (daemon) => {
    const amount = ["--frames", 200, "--warmup", 20];
    const producer = await source(daemon, vga, [...amount, "--fps", 60]);
    const consumer = await sink(daemon, [...amount, "--method", "mmap"]);
    producer.go();
    const [, line] = await Promise.all([producer.done(), complete(consumer)]);
    return { found: trialOf(line.ageNs) };
  });
}

const measured: { name: string; trial(): Promise<Quantities> }[] = [
  { name: "write(2) → read(2), 614400 bytes, a frame", trial: () => flow(vga, "read") },
  { name: "write(2) → DQBUF, 614400 bytes, a frame", trial: () => flow(vga, "mmap") },
  { name: "write(2) → read(2), 16588800 bytes, a frame", trial: () => flow(uhd, "read") },
  { name: "write(2) → DQBUF, 16588800 bytes, a frame", trial: () => flow(uhd, "mmap") },
  { name: "publish → DQBUF returns, 614400 bytes, 60 a second", trial: woken },
];

async function run(effort: Effort): Promise<Section> {
  const commit = process.env.LOOPBACK_PREVIOUS_COMMIT ?? "";
  const of = (cli: string | undefined, trial: () => Promise<Quantities>) => async () => {
    if (cli === undefined) delete process.env.LOOPBACK_CLI;
    else process.env.LOOPBACK_CLI = cli;
    return trial();
  };
  const rows: string[][] = [];
  for (const { name, trial } of measured) {
    const findings = await inTurns(
      [
        { name: "previous", trial: of(process.env.LOOPBACK_PREVIOUS_CLI, trial) },
        { name: "this", trial: of(undefined, trial) },
      ],
      effort,
    );
    const us = (ns: number) => figures(ns / 1000);
    const cells = ["previous", "this"].flatMap((each) => {
      const found = summary(findings, each, "found");
      return [us(found.median), `${us(found.lowest)} – ${us(found.highest)}`];
    });
    const now = summary(findings, "this", "found").median;
    rows.push([name, ...cells, figures(now / summary(findings, "previous", "found").median)]);
  }
  return {
    title: `Against ${commit}`,
    about: "One producer, one consumer; medians in µs.",
    tables: [{ columns: ["", commit, "trials", "this", "trials", "this ÷ that"], rows }],
    verdicts: [],
  };
}

export const bench: Bench = { name: "previous", run };
