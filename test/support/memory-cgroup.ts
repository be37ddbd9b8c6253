/** A memory cgroup of a test's own, in whichever version the system has. Root makes it. */
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { until } from "./mounted.js";

export interface MemoryCgroup {
  readonly path: string;
  /** `unlimited` as well as bytes. */
  limit(bytes: number | "unlimited"): void;
  /** How often the kernel killed for lack of memory in it. */
  oomKills(): number;
  remove(): Promise<void>;
}

function text(...path: string[]): string {
  return readFileSync(join(...path), "utf8");
}

/** Our own directory in a hierarchy, and those above it up to its mount. */
function* upwards(mount: string, path: string): Generator<string> {
  for (let at = path; at !== "" && at !== "/"; at = at.slice(0, at.lastIndexOf("/"))) {
    yield join(mount, at);
  }
  yield mount;
}

interface Place {
  unified: boolean;
  parent: string;
}

/** Where a child can be made whose memory is bounded; undefined where there is none. */
function findPlace(): Place | undefined {
  const own = text("/proc/self/cgroup").trim().split("\n");
  for (const line of text("/proc/self/mountinfo").trim().split("\n")) {
    const [before = "", after = ""] = line.split(" - ");
    const [type, , options = ""] = after.split(" ");
    const mount = before.split(" ")[4] ?? "";
    const unified = type === "cgroup2";
    if (!unified && !(type === "cgroup" && options.split(",").includes("memory"))) continue;
    const entry = own
      .map((each) => /^\d+:([^:]*):(.*)$/.exec(each))
      .find((each) => (unified ? each?.[1] === "" : each?.[1]?.split(",").includes("memory")));
    for (const parent of upwards(mount, entry?.[2] ?? "/")) {
      // In version 2 a child has what its parent lets it have.
      const file = unified ? "cgroup.subtree_control" : "memory.limit_in_bytes";
      try {
        if (!unified || text(parent, file).split(/\s+/).includes("memory")) {
          text(parent, file);
          return { unified, parent };
        }
      } catch {
        // Not visible from here: the one above it may be.
      }
    }
  }
  return undefined;
}

/** A new cgroup, or the reason why none can be made. */
export function makeMemoryCgroup(): MemoryCgroup | string {
  const place = findPlace();
  if (place === undefined) return "no cgroup hierarchy here has the memory controller";
  const path = join(place.parent, `v4l2loopback-test-${process.pid}-${Date.now()}`);
  const names = place.unified
    ? { limit: "memory.max", kills: "memory.events" }
    : { limit: "memory.limit_in_bytes", kills: "memory.oom_control" };
  try {
    mkdirSync(path);
    text(path, names.limit);
  } catch (error) {
    return `${path} can't be made: ${error}`;
  }
  return {
    path,
    limit: (bytes) =>
      writeFileSync(
        join(path, names.limit),
        bytes !== "unlimited" ? `${bytes}\n` : place.unified ? "max\n" : "-1\n",
      ),
    oomKills: () => Number(/^oom_kill (\d+)$/m.exec(text(path, names.kills))?.[1]),
    // A process that has just ended may still be in it.
    remove: () =>
      until(`${path} can be removed`, () => {
        try {
          rmdirSync(path);
          return true;
        } catch (error) {
          return (error as NodeJS.ErrnoException).code === "ENOENT";
        }
      }),
  };
}
