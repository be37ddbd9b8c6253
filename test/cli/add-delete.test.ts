/** Devices that come and go while the daemon lives: the commands, and the control device itself. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Mounted, mounted, runCli, runProgram, stopAllMounts } from "../support/mounted.js";
import { consumer, producer, stopAll, talker } from "../support/programs.js";

let daemon: Mounted;

beforeAll(async () => {
  daemon = await mounted(["video_nr=10", "max_openers=7"]);
});
afterAll(async () => {
  await stopAll();
  await stopAllMounts();
});

const command = (...words: string[]) => runCli([...words, "--mountpoint", daemon.path]);

test("add makes a device that works at once, and delete takes it away", async () => {
  const added = await command(
    ...["add", "video_nr=21", "card_label=Second", "max_buffers=4", "max_width=1280"],
  );
  expect(added).toMatchObject({ code: 0, stderr: "", stdout: `${daemon.dev(21)}\n` });
  expect(await daemon.read(21, "name")).toBe("Second\n");
  expect(await daemon.read(21, "dev")).toBe("81:1\n");
  expect(await daemon.read(21, "max_openers")).toBe("7\n");
  const reader = consumer([daemon.dev(21), "--count", 4, "--idle-ms", 30000]);
  await daemon.joined(21, 1);
  const writer = producer([daemon.dev(21), "--count", 4]);
  expect((await writer.done).frames).toBe(4);
  expect(await reader.done).toMatchObject({ frames: 4, torn: 0 });
  await reader.exited;
  expect((await command("list")).stdout.trimEnd().split("\n")).toHaveLength(2);
  expect(await command("delete", "video21")).toMatchObject({ code: 0, stderr: "" });
  expect((await command("list")).stdout.trimEnd().split("\n")).toHaveLength(1);
  expect((await runProgram("cat", [daemon.dev(21)])).stderr).toContain("No such file");
});

test("the first free number is taken where none is given", async () => {
  const first = (await command("add")).stdout.trim();
  const second = (await command("add")).stdout.trim();
  expect(first).toMatch(/\/dev\/video\d+$/);
  expect(second).not.toBe(first);
  expect(await command("delete", first, second)).toMatchObject({ code: 0 });
});

test.each([
  [["add", "video_nr=10"], 1, "video10 is there already"],
  [["add", "video_nr=1,2"], 2, "one device at a time"],
  [["add", "dynamic_buffering=1"], 2, "dynamic_buffering=1: add takes video_nr"],
  [["add", "video_nr=ten"], 2, '"ten"'],
  [["delete", "video99"], 1, "there is no video99; there are video10"],
  [["delete"], 2, "missing required argument"],
] as const)("%j", async (words, code, part) => {
  const done = await command(...words);
  expect(done.code).toBe(code);
  expect(done.stderr).toContain(part);
});

test("a device that is open can't be removed", async () => {
  const talk = talker();
  expect(await talk.send(`open a ${daemon.dev(10)} rw`)).toMatchObject({ ok: true });
  const done = await command("delete", "10");
  expect(done).toMatchObject({
    code: 1,
    stderr: "v4l2loopback-fuse: video10 is open: close what uses it first\n",
  });
  await talk.kill();
});

test("any program may ask the control device, as upstream's", async () => {
  const done = await runProgram("python3", ["-c", askControl, `${daemon.path}/dev/v4l2loopback`]);
  expect(done.stderr).toBe("");
  expect(done.stdout.trimEnd().split("\n")).toEqual([
    "version 0.15.0",
    "add 30",
    "query 30 b'By program' 48 1920 32 1080 6 5 0",
    "add again EEXIST",
    "two numbers EINVAL",
    "endless lines EINVAL",
    "remove 0",
    "remove again ENODEV",
    "query ENODEV",
    "unknown ENOTTY",
    "read EINVAL",
  ]);
});

const askControl = `
import errno, fcntl, os, struct, sys
control = os.open(sys.argv[1], os.O_RDWR)
layout = "ii32sIIIIiiii"
VERSION, ADD, REMOVE, QUERY = 0x80047e00, 0x40487e01, 0x40047e02, 0xc0487e03
def ask(name, request, argument):
    try:
        return fcntl.ioctl(control, request, argument)
    except OSError as error:
        print(name, errno.errorcode[error.errno])
version = struct.unpack("I", ask("version", VERSION, bytes(4)))[0]
print("version %d.%d.%d" % (version >> 16, version >> 8 & 255, version & 255))
config = struct.pack(layout, 30, 30, b"By program", 48, 1920, 32, 1080, 6, 5, 0, 0)
# fcntl.ioctl gives the bytes back, not the result: the mutable form gives the result.
print("add", fcntl.ioctl(control, ADD, bytearray(config), True))
number, _, label, *limits = struct.unpack(layout, ask("query", QUERY, struct.pack(layout, 30, -1, b"", *[0] * 8)))
print("query", number, label.rstrip(b"\\0"), *limits[:6], limits[7])
ask("add again", ADD, config)
ask("two numbers", ADD, struct.pack(layout, 31, 32, b"", *[0] * 8))
ask("endless lines", ADD, struct.pack(layout, 33, 33, b"", 1 << 31, 1 << 31, *[0] * 6))
print("remove", fcntl.ioctl(control, REMOVE, bytearray(struct.pack("I", 30)), True))
ask("remove again", REMOVE, struct.pack("I", 30))
ask("query", QUERY, config)
ask("unknown", 0x7e55, 0)
try:
    os.read(control, 1)
except OSError as error:
    print("read", errno.errorcode[error.errno])
`;
