/** v4l2-compliance in a `run`, against the expectation recorded in test/golden/compliance.json. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { runCli, runProgram } from "../support/mounted.js";

interface Expectation {
  total: number;
  failed: string[];
  warnings: number;
}

const version =
  (await runProgram("v4l2-compliance", ["--version"])).stdout.match(/\d+\.\d+\.\d+/)?.[0] ?? "none";
const recorded = JSON.parse(
  readFileSync(join(import.meta.dirname, "../golden/compliance.json"), "utf8"),
) as Record<string, Expectation>;

const asOutput = "exec v4l2-compliance -d /dev/video10 -s";
const asCapture = `
  ffmpeg -v error -re -f lavfi -i testsrc=size=640x480:rate=60 -pix_fmt yuyv422 -f v4l2 /dev/video10 < /dev/null &
  producer=$!
  for i in $(seq 1200); do grep -q capture /sys/class/video4linux/video10/state && break; sleep 0.05; done
  v4l2-compliance -d /dev/video10 -s
  kill $producer
  wait
`;

function resultOf(output: string): Expectation {
  const [, total = "", warnings = ""] =
    output.match(/^Total for .*?: (\d+), .*Warnings: (\d+)$/m) ?? [];
  const failed = [...output.matchAll(/^\s*test (.*): FAIL$/gm)].map(([, name]) => name ?? "");
  return {
    total: Number(total),
    failed: [...new Set(failed)].sort(),
    warnings: Number(warnings),
  };
}

for (const ioMode of ["passthrough", "page-cache"]) {
  test.each([
    ["an output device", ["exclusive_caps=1"], asOutput, "exclusive"],
    ["a capture device with a live producer", ["exclusive_caps=1"], asCapture, "exclusive"],
    // A static ring has one producer, and the tool is a second.
    ["a device of both directions", ["exclusive_caps=0", "dynamic_buffering=1"], asCapture, "both"],
  ] as const)(`${ioMode}: %s`, async (_name, parameters, script, key) => {
    const done = await runCli([
      ...["run", "--io-mode", ioMode, "video_nr=10", ...parameters, "--", "bash", "-c", script],
    ]);
    const result = resultOf(done.stdout);
    // Another version has other tests: none of those we know may fail there.
    const expected = recorded[`${version} ${key}`] ?? {
      ...recorded[`1.22.1 ${key}`],
      total: result.total,
    };
    expect(result, `${done.stdout}${done.stderr}`).toEqual(expected);
    expect(result.total).toBeGreaterThan(40);
  });
}
