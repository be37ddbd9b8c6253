/** An ordinary user: by fusermount3, and as root of a user namespace of its own. */
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { asOrdinaryUser, asOrdinaryUserWith } from "../support/ordinary-user.js";

let folder = "";

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "v4l2loopback-user-"));
  chmodSync(folder, 0o777);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const session = `
node $root/dist/cli/main.js mount dynamic_buffering=1 video_nr=10 --mountpoint "$0" < /dev/null > "$0.log" 2>&1 &
daemon=$!
for i in $(seq 600); do [ -e "$0/sys/class/video4linux/video10/name" ] && break; sleep 0.1; done
cat "$0.log"
device=$0/dev/video10
$root/build/test-programs/frame_consumer $device --method mmap --count 50 --idle-ms 30000 &
consumer=$!
for i in $(seq 600); do grep -q '^consumers 1$' "$0/sys/class/video4linux/video10/dynamic_buffer_counters" && break; sleep 0.1; done
$root/build/test-programs/frame_producer $device --method mmap --count 50
wait $consumer
echo 0 > "$0/sys/class/video4linux/video10/dynamic_buffering"
cat "$0/sys/class/video4linux/video10/dynamic_buffer_stats"
kill $daemon
wait $daemon
echo "exit $?"
`;

for (const [name, wrap] of [
  ["fusermount3", ""],
  ["a user namespace", "unshare --user --map-root-user --mount"],
] as const) {
  test(`an ordinary user mounts by ${name}, and its programs map buffers`, async () => {
    const mountpoint = join(folder, wrap === "" ? "by-fusermount" : "by-namespace");
    const done = await asOrdinaryUserWith(wrap, folder, session, mountpoint);
    expect(done.stdout, done.stderr).toContain("(page-cache)");
    const summaries = done.stdout
      .split("\n")
      .filter((line) => line.includes('"event":"done"'))
      .map((line) => JSON.parse(line));
    expect(summaries, done.stdout).toHaveLength(2);
    for (const summary of summaries) expect(summary).toMatchObject({ frames: 50, errno: null });
    expect(summaries.find((each) => "torn" in each)).toMatchObject({ torn: 0, gaps: 0 });
    expect(done.stdout).toContain("Dynamic buffering is not active");
    expect(done.stdout).toContain("exit 0");
  });
}

test("a mountpoint that the user may not make is named", async () => {
  const closed = join(folder, "closed");
  mkdirSync(closed);
  chmodSync(closed, 0o700);
  const done = await asOrdinaryUser(
    folder,
    'exec node $root/dist/cli/main.js mount --mountpoint "$0"',
    join(closed, "v"),
  );
  expect(done.code).toBe(1);
  expect(done.stderr.trimEnd().split("\n")).toHaveLength(1);
  expect(done.stderr).toContain(join(closed, "v"));
  expect(done.stderr).toContain("permission denied");
});

test("the system-wide places are root's", async () => {
  const done = await asOrdinaryUser(
    folder,
    'exec node $root/dist/cli/main.js mount --system --mountpoint "$0"',
    join(folder, "system"),
  );
  expect(done).toMatchObject({
    code: 2,
    stderr: "v4l2loopback-fuse: --system changes /dev and /sys for everybody: only root may\n",
  });
});
