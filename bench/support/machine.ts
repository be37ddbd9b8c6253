// What was measured on, as the machine itself tells it.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { cpus, loadavg, release, totalmem } from "node:os";

function text(path: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return "unknown";
  }
}

function commit(): string {
  try {
    const git = (...args: string[]) => execFileSync("git", args, { encoding: "utf8" }).trim();
    const changed = git("status", "--porcelain", "--untracked-files=no") === "" ? "" : ", changed";
    return `${git("rev-parse", "--short", "HEAD")}${changed}`;
  } catch {
    return "unknown";
  }
}

/** Over 1, 5 and 15 minutes: at the start all of it is others'. */
export function load(): string {
  return loadavg()
    .map((each) => each.toFixed(1))
    .join(" ");
}

export function machine(): [string, string][] {
  const processors = cpus();
  return [
    ["processor", `${processors[0]?.model.trim()}, ${processors.length} of them`],
    ["memory", `${(totalmem() / 1024 ** 3).toFixed(1)} GiB`],
    ["kernel", release()],
    ["largest FUSE request, pages", text("/proc/sys/fs/fuse/max_pages_limit")],
    ["transparent huge pages", text("/sys/kernel/mm/transparent_hugepage/enabled")],
    ["Node", process.version],
    ["commit", commit()],
    ["load at the start", load()],
  ];
}
