/** `run`: real paths, character devices to see, and nothing of the host changed. */
import { type ChildProcess, spawn } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { mounted, runCli, runProgram, stopAllMounts, until } from "../support/mounted.js";
import { asOrdinaryUser } from "../support/ordinary-user.js";

const root = join(import.meta.dirname, "../..");
const cli = join(root, "dist/cli/main.js");
let folder = "";
const children: ChildProcess[] = [];

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "v4l2loopback-run-"));
  chmodSync(folder, 0o777);
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  await stopAllMounts();
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A bash script in a `run` with a daemon of its own. */
const inside = (script: string, ...parameters: string[]) =>
  runCli(["run", "video_nr=10", ...parameters, "--", "bash", "-c", script]);

/** Other tests mount as well, but not in /dev and /sys. */
const mountsOfTheSystem = () =>
  readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .filter((line) => /^\/(dev|sys)(\/|$)/.test(line.split(" ")[4] ?? ""));

const isAlive = (pid: number) => {
  try {
    return readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.[0] !== "Z";
  } catch {
    return false;
  }
};

/** What a character device of ours is to whoever asks. */
const kinds = `
stat -L -c '%F %t:%T' /dev/video10
ln -sf /dev/video10 "$0/camera" && stat -L -c '%F' "$0/camera"
cd /dev && stat -L -c '%F' video10 && cd /
[ -c /dev/video10 ] && echo bash
stat -L -c '%F' - < /dev/video10
node -e 'console.log(fs.statSync("/dev/video10").isCharacterDevice(), fs.fstatSync(fs.openSync("/dev/video10")).rdev)'
"$1/build/test-programs/device_kind" /dev/video10
ls -l /dev/null | cut -c1
v4l2-ctl -d /dev/video10 --get-fmt-video | grep 'Pixel Format'
`;
const kindsSeen = [
  "character special file 51:0",
  "character special file",
  "character special file",
  "bash",
  "character special file",
  "true 20736",
  "stat=c fstat=c fstatat=c statx=c major=81 minor=0",
  "c",
  "\tPixel Format      : 'YUYV' (YUYV 4:2:2)",
];

describe("in a run", () => {
  test("the document's own session runs word for word", async () => {
    const done = await inside(
      `
      cd "$TMPDIR"
      ffmpeg -f lavfi -i testsrc=size=640x480:rate=30 -pix_fmt yuyv422 -f v4l2 /dev/video10 < /dev/null 2> producer.log &
      producer=$!
      timeout -k 5 60 ffmpeg -v error -f v4l2 -i /dev/video10 -frames:v 20 -enc_time_base -1 -f null - < /dev/null ||
        { echo "the reader ended with $?"; cat producer.log; }
      # watch may hang in the handler of the signal that ends it.
      script -qec "timeout -k 5 -s INT 10 watch -n 2 'cat /sys/class/video4linux/video10/dynamic_buffer_stats'" watch.log > /dev/null < /dev/null &
      for i in $(seq 600); do grep -qs 'Frames written' watch.log && break; sleep 0.05; done
      kill -INT $producer
      for i in $(seq 600); do kill -0 $producer 2> /dev/null || break; sleep 0.05; done
      kill -KILL $producer 2> /dev/null && { echo "the producer did not end"; cat producer.log; }
      wait $producer
      echo 1 | tee /sys/class/video4linux/video10/dynamic_buffer_reset_stats
      grep 'Frames written' /sys/class/video4linux/video10/dynamic_buffer_stats
    `.replaceAll("$TMPDIR", folder),
      "dynamic_buffering=1",
      "card_label=DynamicBuffer",
    );
    expect(done.stderr).toBe("");
    expect(done.stdout).toBe("1\nFrames written:  0\n");
    expect(done.code).toBe(0);
  });

  test("programs of every kind see a character device", async () => {
    const done = await runCli(["run", "video_nr=10", "--", "bash", "-c", kinds, folder, root]);
    expect(done.stderr).toBe("");
    expect(done.stdout.trimEnd().split("\n")).toEqual(kindsSeen);
  });

  test("all else is as on the host, and the host is untouched", async () => {
    const hosts = {
      dev: readdirSync("/dev").sort(),
      class: readdirSync("/sys/class").sort(),
      mounts: mountsOfTheSystem(),
    };
    const done = await inside(`
      cat $V4L2LOOPBACK_FUSE_MOUNTPOINT/.daemon
      ls -A /dev | grep -v -e video10 -e v4l2loopback -e .host | xargs
      ls /sys/class | grep -v video4linux | xargs
      touch /dev/only-here
      echo gone > /dev/null && head -c 4 /dev/zero | wc -c
      readlink /sys/class/net/lo
      readlink /sys/dev/char/81:0 /sys/dev/char/1:3
      cat /sys/dev/char/81:0/name /sys/module/v4l2loopback/parameters/video_nr
    `);
    const [pid, dev, classes, ...rest] = done.stdout.trimEnd().split("\n");
    expect(done.stderr).toBe("");
    expect(dev?.split(" ").sort()).toEqual(hosts.dev);
    expect(classes?.split(" ").sort()).toEqual(
      hosts.class.filter((each) => each !== "video4linux"),
    );
    expect(rest).toEqual([
      "4",
      "../../devices/virtual/net/lo",
      "../../devices/virtual/video4linux/video10",
      "../../devices/virtual/mem/null",
      "Dummy video device (0x000A)",
      "10,-1,-1,-1,-1,-1,-1,-1",
    ]);
    await until("its daemon has ended", () => !isAlive(Number.parseInt(pid ?? "", 10)));
    expect(readdirSync("/dev").sort()).toEqual(hosts.dev);
    expect(readdirSync("/sys/class").sort()).toEqual(hosts.class);
    expect(mountsOfTheSystem()).toEqual(hosts.mounts);
  });

  test("another run finds its own device beside the first's", async () => {
    const done = await inside(`
      node ${cli} run video_nr=11 -- bash -c 'stat -L -c %F /dev/video10 /dev/video11; ls /sys/class/video4linux | xargs'
      node ${cli} run video_nr=10 -- true; echo $?
      node ${cli} list | cut -f 1
    `);
    expect(done.stdout).toBe(
      "character special file\ncharacter special file\nvideo10 video11\n1\n" +
        "/dev/.v4l2loopback-fuse/dev/video10\n",
    );
    expect(done.stderr).toBe(
      "v4l2loopback-fuse: /dev/video10 is there already, and would be hidden; " +
        "choose a video_nr that this machine does not have\n",
    );
  });
});

describe("the command's own", () => {
  test.each([
    [["bash", "-c", "exit 7"], { code: 7, signal: null }],
    [["bash", "-c", "kill -KILL $$"], { code: null, signal: "SIGKILL" }],
    [["/nowhere/nothing"], { code: 127, signal: null }],
    [["/etc/passwd"], { code: 126, signal: null }],
  ])("end: %j", async (command, end) => {
    expect(await runCli(["run", "video_nr=10", "--", ...command])).toMatchObject(end);
  });

  test("signals, and its daemon ends with it", async () => {
    const child = spawn(
      process.execPath,
      [
        ...[cli, "run", "video_nr=10", "--", "bash", "-c"],
        "trap 'echo terminated; exit 9' TERM; cat $V4L2LOOPBACK_FUSE_MOUNTPOINT/.daemon; while :; do sleep 0.05; done",
      ],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    children.push(child);
    let output = "";
    child.stdout.on("data", (data) => {
      output += data;
    });
    const ended = new Promise((resolve) => child.on("close", resolve));
    await until("the command runs", () => output.includes("\n"));
    const daemon = Number.parseInt(output, 10);
    expect(isAlive(daemon)).toBe(true);
    child.kill("SIGTERM");
    expect(await ended).toBe(9);
    expect(output).toMatch(/terminated\n$/);
    await until("the daemon has ended", () => !isAlive(daemon));
  });

  test("SIGKILL ends its daemon, too, and what it left behind can still stat", async () => {
    const late = join(folder, "late");
    const child = spawn(
      process.execPath,
      [
        ...[cli, "run", "video_nr=10", "--", "bash", "-c"],
        `(for i in $(seq 1200); do [ -e ${late}.ask ] && break; sleep 0.05; done; stat -c %F /dev/null > ${late}) &
         cat $V4L2LOOPBACK_FUSE_MOUNTPOINT/.daemon
         exec sleep 1000`,
      ],
      { stdio: ["ignore", "pipe", "ignore"] },
    );
    children.push(child);
    let output = "";
    child.stdout.on("data", (data) => {
      output += data;
    });
    await until("the command runs", () => output.includes("\n"));
    child.kill("SIGKILL");
    await until("the daemon has ended", () => !isAlive(Number.parseInt(output, 10)));
    await runProgram("touch", [`${late}.ask`]);
    await until("what it left has asked", () => existsSync(late) && readFileSync(late).length > 0);
    expect(readFileSync(late, "utf8")).toBe("character special file\n");
  });

  test("terminal", async () => {
    const done = await runProgram("script", [
      "-qec",
      `${process.execPath} ${cli} run video_nr=10 -- bash -c 'test -t 0 -a -t 1 -a -t 2 && tty && ps -o stat= -p $$'`,
      "/dev/null",
    ]);
    // In the foreground of its terminal, as a session of one's own would not be.
    expect(done.stdout.replaceAll("\r", "")).toMatch(/^\/dev\/pts\/\d+\n\S*\+\n$/);
  });

  test("standard input and inherited descriptors, and no others", async () => {
    const list = join(folder, "descriptors");
    const ask =
      "cat; cat <&7; ls -l /proc/self/fd | grep -v null | grep -o ' [0-9]* ->' > $0; ulimit -n";
    const stdio = ["pipe", "pipe", "inherit", null, null, null, null] as const;
    const file = openSync(join(root, "LICENSE"), "r");
    const direct = spawn("bash", ["-c", ask, `${list}.direct`], { stdio: [...stdio, file] });
    const through = spawn(
      process.execPath,
      [cli, "run", "video_nr=10", "--", "bash", "-c", ask, list],
      { stdio: [...stdio, openSync(join(root, "LICENSE"), "r")] },
    );
    const outputs: string[] = [];
    for (const child of [direct, through]) {
      children.push(child);
      let output = "";
      child.stdout?.on("data", (data) => {
        output += data;
      });
      child.stdin?.end("typed\n");
      expect(await new Promise((resolve) => child.on("close", resolve))).toBe(0);
      outputs.push(output);
    }
    expect(outputs[0]).toContain("typed\nMIT License");
    expect(outputs[1]).toBe(outputs[0]);
    expect(readFileSync(list, "utf8")).toBe(readFileSync(`${list}.direct`, "utf8"));
  });
});

test("without parameters it joins the daemon that is mounted", async () => {
  const daemon = await mounted(["video_nr=10", "card_label=Joined"]);
  const done = await runCli([
    ...["run", "--mountpoint", daemon.path, "--", "bash", "-c"],
    `cat /sys/class/video4linux/video10/name
     echo 1 > /sys/class/video4linux/video10/dynamic_buffering
     stat -L -c %F /dev/video10
     head -c 614400 /dev/zero > /dev/video10`,
  ]);
  expect(done).toMatchObject({ code: 0, stderr: "", stdout: "Joined\ncharacter special file\n" });
  expect(await daemon.read(10, "dynamic_buffering")).toBe("1\n");
  expect((await daemon.counters(10)).published_frames).toBe(1);
});

test("devices that come and go are followed", async () => {
  const done = await inside(`
    node ${cli} add video_nr=11 card_label=Later
    for i in $(seq 600); do [ -c /dev/video11 ] && break; sleep 0.05; done
    stat -L -c %F /dev/video11
    cat /sys/class/video4linux/video11/name /sys/dev/char/81:1/index
    node ${cli} delete 11
    for i in $(seq 600); do [ -L /dev/video11 ] || break; sleep 0.05; done
    ls /dev | grep video | xargs
  `);
  expect(done.stderr).toBe("");
  expect(done.stdout).toBe(
    "/dev/.v4l2loopback-fuse/dev/video11\ncharacter special file\nLater\n0\nvideo10\n",
  );
});

test("the control device takes what v4l2loopback-ctl passes: a number, and NULL", async () => {
  const done = await inside(`python3 -c '
import errno, fcntl, os
control = os.open("/dev/v4l2loopback", os.O_RDWR)
ADD, REMOVE = 0x40487e01, 0x40047e02
added = fcntl.ioctl(control, ADD, 0)
print(added, open("/sys/class/video4linux/video%d/name" % added).read(), end="")
print(fcntl.ioctl(control, REMOVE, added))
try:
    fcntl.ioctl(control, REMOVE, added)
except OSError as error:
    print(errno.errorcode[error.errno])
'`);
  expect(done.stderr).toContain("the control device refuses: there is no video0");
  expect(done.stdout).toBe("0 Dummy video device (0x0000)\n0\nENODEV\n");
});

test("an ordinary user has all of it", async () => {
  const done = await asOrdinaryUser(
    folder,
    `node $root/dist/cli/main.js run video_nr=10 dynamic_buffering=1 -- bash -c '
       id -u; grep CapEff /proc/self/status
       mkdir "$0/own" && set -- "$0/own" "$1"
       ${kinds.replaceAll("'", `'"'"'`).replaceAll('"$0/', '"$1/').replaceAll('"$1/build', '"$2/build')}
       "$2/build/test-programs/frame_consumer" /dev/video10 --method mmap --count 50 --idle-ms 30000 > "$1/consumed" &
       consumer=$!
       for i in $(seq 1200); do grep -q "^consumers 1$" /sys/class/video4linux/video10/dynamic_buffer_counters && break; sleep 0.05; done
       "$2/build/test-programs/frame_producer" /dev/video10 --method mmap --count 50 > /dev/null
       wait $consumer && grep -o "\\"torn\\":0" "$1/consumed"
       exit 5' "$0" "$root"`,
    folder,
  );
  expect(done.stderr).toBe("");
  expect(done.stdout.trimEnd().split("\n")).toEqual([
    "65534",
    "CapEff:\t0000000000000000",
    ...kindsSeen,
    '"torn":0',
  ]);
  expect(done.code).toBe(5);
});

test.each([
  [["run", "ls"], 2, "ls is not parameter=value; a command follows --"],
  [["run", "nonsense=1", "--", "ls"], 2, "unknown parameter nonsense"],
  [["run", "video_nr=10", "--mountpoint", "/nowhere", "--", "ls"], 2, "--mountpoint"],
  [["run", "dynamic_buffer_max=1K", "--", "ls"], 2, "dynamic_buffer_max=1K"],
  [["run", "--mountpoint", "/nowhere", "--", "ls"], 1, "nothing of ours is mounted at /nowhere"],
  [["run", "--io-mode", "fast", "--", "ls"], 2, "fast"],
] as const)("%j", async (args, code, part) => {
  const done = await runCli([...args]);
  expect(done).toMatchObject({ code, stdout: "" });
  expect(done.stderr).toContain(part);
});
