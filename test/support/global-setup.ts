/** Before all tests: their C++ programs are compiled. After: no mount of ours may be left. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const sources = "test/programs";
export const programFolder = "build/test-programs";

function compile(): void {
  mkdirSync(programFolder, { recursive: true });
  const headers = readdirSync(sources).filter((name) => name.endsWith(".h"));
  for (const name of readdirSync(sources).filter((each) => each.endsWith(".cc"))) {
    const hash = createHash("sha256");
    for (const each of [...headers, name]) hash.update(readFileSync(join(sources, each)));
    const program = join(programFolder, name.slice(0, -3));
    const stamp = `${program}.stamp`;
    const value = hash.digest("hex");
    if (existsSync(stamp) && readFileSync(stamp, "utf8") === value) continue;
    const flags = ["-std=gnu++20", "-O2", "-Wall", "-Wextra", "-Werror"];
    if (name === "device_kind.cc") flags.push("-static");
    execFileSync("g++", [...flags, join(sources, name), "-o", program], { stdio: "inherit" });
    writeFileSync(stamp, value);
  }
}

function ourMounts(): Set<string> {
  return new Set(
    readFileSync("/proc/self/mountinfo", "utf8")
      .split("\n")
      .filter((line) => line.includes(" fuse.v4l2loopback"))
      .map((line) => line.split(" ")[4] ?? ""),
  );
}

export default function setup(): () => void {
  const before = ourMounts();
  compile();
  return () => {
    const left = [...ourMounts()].filter((path) => !before.has(path));
    if (left.length > 0) {
      process.stdout.write(`the tests left mounted: ${left.join(", ")}\n`);
      process.exitCode = 1;
    }
  };
}
