/**
 * `mount --system`, in a mount namespace of the test's own: what is "everybody's" there is nobody's
 * else, and real processes see it come and go.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { runProgram } from "../support/mounted.js";

const root = join(import.meta.dirname, "../..");
let folder = "";

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "v4l2loopback-system-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const lines = `
cli="node $1/dist/cli/main.js"
cd "$2"
# A /dev of this namespace's own, since links in the real one would be everybody's.
mkdir -p dev-upper && mount -t tmpfs none dev-upper
for each in /dev/*; do
  [ -L "$each" ] && continue
  [ -d "$each" ] && mkdir dev-upper/\${each#/dev/} || touch dev-upper/\${each#/dev/}
  mount --rbind "$each" dev-upper/\${each#/dev/}
done
mount --rbind dev-upper /dev
# Copies of other tests' mounts vanish with the directories that they are on.
mounts() { cut -d ' ' -f 5- /proc/self/mountinfo | grep -e '^/dev' -e '^/sys' -e "^$PWD" | sort | md5sum; }
wait_for() { for i in $(seq 600); do eval "$1" && return; sleep 0.05; done; echo "in vain: $1"; }
start() { $cli mount --system video_nr=10,77 dynamic_buffering=1 --mountpoint "$PWD/$1" < /dev/null > "$1.log" 2>&1 & daemon=$!; wait_for "grep -qs Ctrl-C $1.log"; }
before=$(mounts)
`.replaceAll("\\$", "$");

/** A script in a mount namespace of its own. */
const inNamespace = (script: string) =>
  runProgram("unshare", [
    ...["--mount", "--propagation", "private"],
    ...["bash", "-c", lines + script, "bash", root, folder],
  ]);

test("everybody finds the devices at their places, until it is unmounted", async () => {
  const done = await inNamespace(`
    start one
    readlink /dev/video10 | sed "s|$PWD||"
    cat /sys/class/video4linux/video10/name /sys/dev/char/81:0/index
    echo 0 > /sys/class/video4linux/video10/dynamic_buffering
    cat /sys/devices/virtual/video4linux/video10/dynamic_buffering /sys/module/v4l2loopback/version
    grep ' /dev/video10 ' one.log | head -1
    $cli mount --system --mountpoint "$PWD/other" < /dev/null; echo "second: $?"
    kill $daemon; wait $daemon; echo "exit $?"
    ls /dev | grep -e video -e v4l2; [ "$(mounts)" = "$before" ] && echo as before
  `);
  expect(done.stderr).toBe(
    "v4l2loopback-fuse: another daemon has its devices system-wide already\n",
  );
  expect(done.stdout.trimEnd().split("\n")).toEqual([
    "/one/dev/video10",
    "Dummy video device (0x000A)",
    "0",
    "0",
    "0.15.0",
    expect.stringContaining("/dev/video10"),
    "second: 1",
    "exit 0",
    "as before",
  ]);
});

test("SIGKILL takes them away as well; and of both processes, at the next start", async () => {
  const done = await inNamespace(`
    start two
    kill -9 $daemon
    wait_for '! [ -L /dev/video10 ]'
    wait_for '! [ -e /sys/class/video4linux/video10 ]'
    wait $daemon; umount -l two/dev two/sys
    [ "$(mounts)" = "$before" ] && echo as before
    start three
    guard=$(pgrep -P $daemon v4l2loopback_ru)
    kill -9 $guard $daemon
    wait $daemon
    [ -L /dev/video10 ] && echo left behind
    start four
    cat /sys/class/video4linux/video10/index
    kill $daemon; wait $daemon; echo "exit $?"
    umount -l three/dev three/sys
    ls /dev | grep video; [ "$(mounts)" = "$before" ] && echo as before
  `);
  expect(done.stdout.trimEnd().split("\n")).toEqual([
    "as before",
    "left behind",
    "0",
    "exit 0",
    "as before",
  ]);
});

test("it never hides a camera that is there", async () => {
  const done = await inNamespace(`
    mknod /dev/video77 c 81 77
    $cli mount --system video_nr=10,77 --mountpoint "$PWD/five" < /dev/null; echo $?
    [ -c /dev/video77 ] && ! [ -L /dev/video77 ] && ! [ -L /dev/video10 ] && echo untouched
    [ "$(mounts)" = "$before" ] && echo as before
  `);
  expect(done.stdout).toBe("1\nuntouched\nas before\n");
  expect(done.stderr).toContain("/dev/video77 is there already, and would be hidden");
});
