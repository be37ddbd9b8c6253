// `npm run bench [-- [--quick] [--nice=N] NAME …]`: measures, and writes what came of it. All
// benchmarks at full length go to bench/results.md; a part, or --quick, to build/bench-results.md,
// so that what is published comes from one run. --nice is for a machine that others use as well.
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { getPriority, setPriority } from "node:os";
import { join } from "node:path";
import { stopAllMounts } from "../test/support/mounted.js";
import { bench as oneToOne } from "./1p1c.bench.js";
import { bench as ringAlone } from "./1p1c-ring.bench.js";
import { bench as instructions } from "./1p1c-instructions.bench.js";
import { bench as latency } from "./1p1c-latency.bench.js";
import { bench as mapped } from "./1p1c-mmap.bench.js";
import { bench as hundred } from "./100p100c.bench.js";
import { bench as consumers } from "./1pnc.bench.js";
import { bench as twoToOne } from "./2p1c.bench.js";
import { bench as memory } from "./memory.bench.js";
import { bench as resize } from "./resize.bench.js";
import type { Effort } from "./support/bench.js";
import { killClients } from "./support/clients.js";
import { killPipelines } from "./support/gstreamer.js";
import { machine } from "./support/machine.js";
import { markdown } from "./support/report.js";

const benches = [
  oneToOne,
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

async function cleanUp(): Promise<void> {
  killClients();
  killPipelines();
  await stopAllMounts();
}

async function main(): Promise<void> {
  const words = process.argv.slice(2);
  const quick = words.includes("--quick");
  const names = words.filter((word) => !word.startsWith("--"));
  for (const word of words.filter((each) => each.startsWith("--") && each !== "--quick")) {
    const nice = /^--nice=(-?\d+)$/.exec(word)?.[1];
    if (nice === undefined) throw new Error(`${word}: only --quick and --nice=N are known`);
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
  const chosen = benches.filter(({ name }) => names.length === 0 || names.includes(name));
  const effort: Effort = { quick, rounds: quick ? 3 : 7 };
  const on: [string, string][] = [...machine(), ["priority", `nice ${getPriority()}`]];
  const begun = Date.now();
  const sections = [];
  for (const { name, run } of chosen) {
    process.stderr.write(`${name} …\n`);
    sections.push(await run(effort));
  }
  const whole = names.length === 0 && !quick;
  const kind = [
    names.length === 0 ? "all benchmarks" : `only ${names.join(", ")}`,
    ...(quick ? ["quick: fewer and shorter trials"] : []),
  ].join(", ");
  const report = markdown({ kind, machine: on, minutes: (Date.now() - begun) / 60_000, sections });
  const file = whole ? "bench/results.md" : "build/bench-results.md";
  mkdirSync(join(root, "build"), { recursive: true });
  writeFileSync(join(root, file), report);
  process.stdout.write(`${report}\nwritten to ${file}\n`);
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.once(signal, () => {
    void cleanUp().finally(() => process.exit(130));
  });
}

main()
  .catch((error: unknown) => {
    process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  })
  .finally(cleanUp);
