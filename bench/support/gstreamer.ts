// GStreamer's shmsink and shmsrc, where they are installed.
//
//   fakesrc ─▶ shmsink ─ one copy ─▶ shared memory ─ mapped ─▶ shmsrc ─▶ fakesink
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { until } from "../../test/support/mounted.js";
import type { Trial } from "./statistics.js";

const patienceMs = 60_000;

export function hasGstreamer(): boolean {
  return spawnSync("gst-inspect-1.0", ["shmsink"], { stdio: "ignore" }).status === 0;
}

const running = new Set<ChildProcess>();

export function killPipelines(): void {
  for (const child of running) child.kill("SIGKILL");
}

function pipeline(words: string[]) {
  const child = spawn("gst-launch-1.0", ["-q", ...words], { stdio: "ignore" });
  running.add(child);
  const timer = setTimeout(() => child.kill("SIGKILL"), patienceMs);
  const ended = new Promise<number | null>((resolve) => {
    child.on("error", () => resolve(null));
    child.on("exit", resolve);
  });
  void ended.then(() => {
    clearTimeout(timer);
    running.delete(child);
  });
  return ended;
}

async function elapsedNs(bytes: number, frames: number): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), "v4l2loopback-bench-"));
  const path = join(folder, "socket");
  try {
    const sent = pipeline(
      `fakesrc num-buffers=${frames} sizetype=fixed sizemax=${bytes} filltype=nothing ! shmsink socket-path=${path} shm-size=${64 << 20} wait-for-connection=true sync=false`.split(
        " ",
      ),
    );
    await until("shmsink listens", () => existsSync(path));
    const before = process.hrtime.bigint();
    const received = await pipeline(
      `shmsrc socket-path=${path} num-buffers=${frames} ! fakesink sync=false`.split(" "),
    );
    const after = process.hrtime.bigint();
    if (received !== 0) throw new Error(`shmsrc ended with ${received}`);
    // What shmsink says once its reader has gone does not matter.
    await sent;
    return Number(after - before);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * A frame's cost: of many frames less that of a few, so that starting is not in it. How long that
 * takes varies, so the many have to be many.
 */
export async function gstreamerTrial(bytes: number, frames: number): Promise<Trial> {
  const few = await elapsedNs(bytes, frames);
  const many = await elapsedNs(bytes, 9 * frames);
  const each = (many - few) / (8 * frames);
  return { median: each, p99: each };
}
