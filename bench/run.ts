// `npm run bench [-- [--quick] [--nice=N] NAME …]`: measures, and writes what came of it. All
// benchmarks at full length go to bench/results.md; a part, or --quick, to build/bench-results.md,
// so that what is published comes from one run. --against=COMMIT compares with that commit's tree
// instead, and writes bench/against.md. --nice is for a machine that others use as well.
// On a machine of our own all of it takes about a quarter of an hour.
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { getPriority, setPriority } from "node:os";
import { join } from "node:path";
import { messageOf } from "../src/errors.js";
import { stopAllMounts } from "../test/support/mounted.js";
import { bench as oneToOne } from "./1p1c.bench.js";
import { bench as ringAlone } from "./1p1c-ring.bench.js";
import { bench as instructions } from "./1p1c-instructions.bench.js";
import { bench as latency } from "./1p1c-latency.bench.js";
import { bench as mapped } from "./1p1c-mmap.bench.js";
import { bench as profile } from "./1p1c-profile.bench.js";
import { bench as hundred } from "./100p100c.bench.js";
import { bench as consumers } from "./1pnc.bench.js";
import { bench as twoToOne } from "./2p1c.bench.js";
import { bench as memory } from "./memory.bench.js";
import { bench as previous } from "./previous.bench.js";
import { bench as resize } from "./resize.bench.js";
import type { Effort, Section } from "./support/bench.js";
import { killClients } from "./support/clients.js";
import { killPipelines } from "./support/gstreamer.js";
import { load, machine } from "./support/machine.js";
import { markdown } from "./support/report.js";

const benches = [
  oneToOne,
  profile,
  mapped,
  latency,
  ringAlone,
  instructions,
  resize,
  twoToOne,
  consumers,
  memory,
  hundred,
];
const root = join(import.meta.dirname, "..");
let interrupted = false;

async function cleanUp(): Promise<void> {
  killClients();
  killPipelines();
  await stopAllMounts();
}

async function main(): Promise<void> {
  const words = process.argv.slice(2);
  const quick = words.includes("--quick");
  const names = words.filter((word) => !word.startsWith("--"));
  const against = process.env.LOOPBACK_PREVIOUS_CLI !== undefined;
  const known = (word: string) => word === "--quick" || word.startsWith("--against=");
  for (const word of words.filter((each) => each.startsWith("--") && !known(each))) {
    const nice = /^--nice=(-?\d+)$/.exec(word)?.[1];
    if (nice === undefined)
      throw new Error(`${word}: only --quick, --against=COMMIT and --nice=N are known`);
    // The daemon and all clients inherit it. Between sessions the scheduler may look at the
    // session's own value instead: scripts/bench.mjs has made one for us.
    setPriority(Number(nice));
    if (existsSync("/proc/self/autogroup")) writeFileSync("/proc/self/autogroup", nice);
  }
  const all = benches.map(({ name }) => name);
  const unknown = names.find((name) => !all.includes(name));
  if (unknown !== undefined) {
    throw new Error(`unknown benchmark ${unknown}; there are ${all.join(", ")}`);
  }
  const chosen = against
    ? [previous]
    : benches.filter(({ name }) => names.length === 0 || names.includes(name));
  const effort: Effort = { quick, rounds: quick ? 3 : 7 };
  const on = machine();
  const begun = Date.now();
  const sections: Section[] = [];
  const failed: string[] = [];
  for (const { name, run } of chosen) {
    const minute = ((Date.now() - begun) / 60_000).toFixed(1);
    process.stderr.write(`${name} … (after ${minute} minutes)\n`);
    try {
      sections.push(await run(effort));
    } catch (error) {
      if (interrupted) return;
      const about = `Failed: ${messageOf(error)}`;
      process.stderr.write(`${about}\n`);
      failed.push(name);
      sections.push({ title: name, about, tables: [], verdicts: [] });
      await cleanUp();
    }
  }
  const kind = [
    against ? "two trees" : names.length === 0 ? "all benchmarks" : `only ${names.join(", ")}`,
    ...(quick ? ["quick: fewer and shorter trials"] : []),
    ...(failed.length > 0 ? [`failed: ${failed.join(", ")}`] : []),
  ].join(", ");
  const minutes = (Date.now() - begun) / 60_000;
  const report = markdown({
    kind,
    machine: [...on, ["priority", `nice ${getPriority()}`], ["load at the end", load()]],
    rounds: effort.rounds,
    minutes,
    sections,
  });
  const whole = names.length === 0 && !quick && failed.length === 0;
  const published = against ? "bench/against.md" : "bench/results.md";
  const file = whole ? published : "build/bench-results.md";
  mkdirSync(join(root, "build"), { recursive: true });
  writeFileSync(join(root, file), report);
  process.stdout.write(`${report}\nwritten to ${file}\n`);
  if (failed.length > 0) process.exitCode = 1;
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => {
    // A terminal's Ctrl-C comes twice: from it, and passed on by scripts/bench.mjs.
    if (interrupted) return;
    interrupted = true;
    void cleanUp().finally(() => process.exit(130));
  });
}

main()
  .catch((error: unknown) => {
    process.stderr.write(`bench: ${messageOf(error)}\n`);
    process.exitCode = 1;
  })
  .finally(cleanUp);
