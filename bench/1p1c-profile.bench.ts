// Where the session's threads spend their time while frames flow.
//
//   frame_source ── write(2) ──▶ device ── read(2), or DQBUF ──▶ frame_sink
//                                  ▲
//                            perf record
//
//   A share is of the time that the threads run; waiting is not in it. `perf` is looked for and not
//   installed: its package follows the kernel.
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Bench, Effort, Section } from "./support/bench.js";
import { percent } from "./support/bench.js";
import { complete, type Picture, sink, source, uhd, vga, withDaemon } from "./support/device.js";

const thread = "v4l2-session";

/** The first that matches counts. */
const parts: { name: string; symbols: RegExp }[] = [
  { name: "copying", symbols: /^\[.\] (_*mem(cpy|move)|_*rep_movs|_*copy_(user|to|from))/ },
  {
    name: "first touch of new memory",
    symbols: /^\[k\] (clear_page|.*fault|do_anonymous|.*charge)/,
  },
  {
    name: "finding both sides' pages",
    symbols: /^\[k\] .*(gup|get_user_pages|get_pages|folio|fuse_copy|iov_iter|pte_|follow_page)/,
  },
  {
    name: "waking and going to sleep",
    symbols: /^\[k\] .*(sched|wake|futex|task|switch|rq|idle|write_msr|load_avg|entity)/,
  },
  { name: "our own code", symbols: /^\[\.\] loopback::/ },
  { name: "the rest of the kernel", symbols: /^\[k\]/ },
  { name: "libraries", symbols: /^\[\.\]/ },
];

function hasPerf(): boolean {
  return spawnSync("perf", ["--version"], { stdio: "ignore" }).status === 0;
}

/** Records until `use` is done. Shares by part, in the order of `parts`. */
async function recorded(pid: number, use: () => Promise<unknown>): Promise<number[]> {
  const folder = mkdtempSync(join(tmpdir(), "v4l2loopback-perf-"));
  const file = join(folder, "data");
  try {
    const words = ["record", "-q", "-F", "2000", "-o", file, "-p", String(pid)];
    const perf = spawn("perf", words, { stdio: "ignore" });
    const ended = new Promise((resolve) => perf.on("exit", resolve));
    try {
      await use();
    } finally {
      perf.kill("SIGINT");
      await ended;
    }
    const shown = spawnSync(
      "perf",
      [
        ...["report", "-i", file, "--comm", thread, "--percentage", "relative"],
        ...["--sort", "symbol", "--stdio", "-g", "none"],
      ],
      { encoding: "utf8", maxBuffer: 64 << 20 },
    );
    return shares(shown.stdout);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function shares(report: string): number[] {
  const found = parts.map(() => 0);
  let all = 0;
  for (const [, share, symbol] of report.matchAll(/^\s*([\d.]+)%\s+(\[.\] \S+)/gm)) {
    const at = parts.findIndex(({ symbols }) => symbols.test(symbol ?? ""));
    found[at] = (found[at] ?? 0) + Number(share);
    all += Number(share);
  }
  if (all === 0) throw new Error("perf saw nothing of the session's threads");
  return found.map((share) => share / all);
}

async function profile(picture: Picture, method: "read" | "mmap"): Promise<number[]> {
  return withDaemon(picture.words, async (daemon) => {
    const amount = ["--frames", picture.flow.frames, "--warmup", picture.flow.warmup];
    const producer = await source(daemon, picture, amount);
    const consumer = await sink(daemon, [...amount, "--method", method]);
    return recorded(daemon.pid, async () => {
      producer.go();
      await Promise.all([producer.done(), complete(consumer)]);
    });
  });
}

async function run(_effort: Effort): Promise<Section> {
  const title = "1P1C: where the session's threads spend their time";
  if (!hasPerf())
    return { title, about: "Not measured: `perf` is not installed.", tables: [], verdicts: [] };
  const columns = [
    ["614400 bytes, read(2)", await profile(vga, "read")] as const,
    ["614400 bytes, mmap", await profile(vga, "mmap")] as const,
    ["16588800 bytes, read(2)", await profile(uhd, "read")] as const,
    ["16588800 bytes, mmap", await profile(uhd, "mmap")] as const,
  ];
  return {
    title,
    about:
      "Producer and consumer at once, by write(2) and what the column names; `perf record` of the " +
      "daemon, once, by what the sampled functions are called.",
    tables: [
      {
        columns: ["part of their processor time", ...columns.map(([name]) => name)],
        rows: parts.map(({ name }, at) => [
          name,
          ...columns.map(([, found]) => percent(found[at] ?? 0)),
        ]),
      },
    ],
    verdicts: [],
  };
}

export const bench: Bench = { name: "1p1c-profile", run };
