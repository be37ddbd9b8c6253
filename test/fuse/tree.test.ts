/** The mirrored tree on a real mount, through the programs that people use. */
import { lstatSync, readlinkSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Mounted, mounted, runProgram, shell, stopAllMounts } from "../support/mounted.js";

let daemon: Mounted;

beforeAll(async () => {
  daemon = await mounted(["devices=2", "video_nr=10,11", "card_label=DynamicBuffer,Second"]);
});
afterAll(stopAllMounts);

const at = (name: string) => daemon.attribute(10, name);
const sys = (...parts: string[]) => join(daemon.path, "sys", ...parts);

/** The kernel's answer to one write(2) of these bytes. */
async function store(path: string, value: string): Promise<string> {
  const done = await runProgram("python3", [
    "-c",
    [
      "import errno, os, sys",
      "try:",
      "    os.write(os.open(sys.argv[1], os.O_WRONLY), sys.argv[2].encode())",
      "    print('taken')",
      "except OSError as error:",
      "    print(errno.errorcode[error.errno])",
    ].join("\n"),
    path,
    value,
  ]);
  return done.stdout.trim();
}

describe("names, modes and sizes", () => {
  test("the class and the character devices are links to the devices", () => {
    expect(readlinkSync(sys("class/video4linux/video10"))).toBe(
      "../../devices/virtual/video4linux/video10",
    );
    expect(readlinkSync(at("subsystem"))).toBe("../../../../class/video4linux");
  });

  test("a minor's link has a real system's target", async () => {
    const dev = (await daemon.read(10, "dev")).trim();
    expect(readlinkSync(sys("dev/char", dev))).toBe("../../devices/virtual/video4linux/video10");
  });

  test("a minor's link leads to its device", async () => {
    for (const [number, name] of [
      [10, "DynamicBuffer\n"],
      [11, "Second\n"],
    ] as const) {
      const dev = (await daemon.read(number, "dev")).trim();
      expect(dev).toMatch(/^81:\d+$/);
      expect((await runProgram("cat", [sys("dev/char", dev, "name")])).stdout).toBe(name);
    }
  });

  test.each([
    ["buffers", 0o444],
    ["dev", 0o444],
    ["dev_debug", 0o644],
    ["dynamic_buffer_consumers", 0o444],
    ["dynamic_buffer_counters", 0o444],
    ["dynamic_buffer_high_watermark", 0o644],
    ["dynamic_buffer_lap", 0o644],
    ["dynamic_buffer_low_watermark", 0o644],
    ["dynamic_buffer_max", 0o644],
    ["dynamic_buffer_min", 0o644],
    ["dynamic_buffer_overflow", 0o644],
    ["dynamic_buffer_reset_stats", 0o200],
    ["dynamic_buffer_shrink_delay_ms", 0o644],
    ["dynamic_buffer_stall_timeout_ms", 0o644],
    ["dynamic_buffer_stats", 0o444],
    ["dynamic_buffering", 0o644],
    ["format", 0o644],
    ["index", 0o444],
    ["max_openers", 0o644],
    ["name", 0o444],
    ["state", 0o444],
    ["uevent", 0o644],
  ])("%s", (name, mode) => {
    const stat = lstatSync(at(name));
    expect(stat.isFile()).toBe(true);
    expect(stat.mode & 0o777).toBe(mode);
    expect(stat.size).toBe(4096);
  });

  test("power/ is there, and directories are 0755 of size 0", async () => {
    const stat = lstatSync(at("power"));
    expect(stat.isDirectory()).toBe(true);
    expect(stat.mode & 0o777).toBe(0o755);
    expect(stat.size).toBe(0);
    expect(await readdir(at("power"))).toContain("runtime_status");
  });
});

describe("contents", () => {
  test.each([
    ["buffers", "0\n"],
    ["dev_debug", "0\n"],
    ["dynamic_buffer_stats", "Dynamic buffering is not active\n"],
    ["dynamic_buffering", "0\n"],
    ["format", ""],
    ["index", "0\n"],
    ["max_openers", "10\n"],
    ["name", "DynamicBuffer\n"],
    ["state", "output\n"],
    ["power/async", "disabled\n"],
    ["power/control", "auto\n"],
    ["power/runtime_status", "unsupported\n"],
    ["power/runtime_enabled", "disabled\n"],
    ["dynamic_buffer_min", "1228800\n"],
    ["dynamic_buffer_high_watermark", "75\n"],
    ["dynamic_buffer_low_watermark", "25\n"],
    ["dynamic_buffer_shrink_delay_ms", "5000\n"],
    ["dynamic_buffer_overflow", "block\n"],
    ["dynamic_buffer_stall_timeout_ms", "1000\n"],
    ["dynamic_buffer_lap", "newest\n"],
  ])("%s before any opener", async (name, content) => {
    expect(await daemon.read(10, name)).toBe(content);
  });

  test("uevent names the device", async () => {
    const minor = (await daemon.read(10, "dev")).trim().split(":")[1];
    expect(await daemon.read(10, "uevent")).toBe(`MAJOR=81\nMINOR=${minor}\nDEVNAME=video10\n`);
  });

  test.each([
    ["version", "0.15.0\n"],
    ["parameters/debug", "0\n"],
    ["parameters/dynamic_buffering", "0\n"],
    ["parameters/exclusive_caps", "N,N,N,N,N,N,N,N\n"],
    ["parameters/max_buffers", "2\n"],
    ["parameters/max_height", "8192\n"],
    ["parameters/max_openers", "10\n"],
    ["parameters/max_width", "8192\n"],
    ["parameters/video_nr", "10,11,-1,-1,-1,-1,-1,-1\n"],
  ])("module/v4l2loopback/%s", async (name, content) => {
    expect((await runProgram("cat", [sys("module/v4l2loopback", name)])).stdout).toBe(content);
  });

  test("small reads give pieces of one text", async () => {
    const done = await runProgram("python3", [
      "-c",
      "import os, sys; f = os.open(sys.argv[1], os.O_RDONLY); " +
        "print(os.pread(f, 3, 0), os.pread(f, 3, 2), os.pread(f, 9, 4096))",
      at("name"),
    ]);
    expect(done.stdout.trim()).toBe("b'Dyn' b'nam' b''");
  });
});

describe("stores", () => {
  test.each([
    ...["1", "1\n", "0x1\n", "01\n", "+1\n", "0"].map((value) => [value, "taken"]),
    ...["2", "10", "abc", "y", "on", "\n", " 1\n", "1 \n", "1\n\n", "-1", "-0"].map((value) => [
      value,
      "EINVAL",
    ]),
    ["99999999999999999999999", "ERANGE"],
    ["", "taken"],
  ])("dynamic_buffering: %j is %s", async (value, answer) => {
    expect(await store(at("dynamic_buffering"), value as string)).toBe(answer);
  });

  test.each([
    ["format", "@25", "taken"],
    ["format", "@30000/1001\n", "taken"],
    ["format", "25", "EINVAL"],
    ["format", "@0", "EINVAL"],
    ["format", "YUYV:640x480@30", "EINVAL"],
    ["format", "@30", "taken"],
    ["max_openers", "12", "taken"],
    ["max_openers", "many", "EINVAL"],
    ["max_openers", "10", "taken"],
    ["uevent", "add\n", "taken"],
    ["uevent", "explode", "EINVAL"],
    ["dev_debug", "3", "taken"],
    ["dev_debug", "x", "EINVAL"],
    ["dynamic_buffer_max", "64M", "taken"],
    ["dynamic_buffer_max", "1K", "EINVAL"],
    ["dynamic_buffer_low_watermark", "40", "EINVAL"],
    ["dynamic_buffer_overflow", "drop\n", "taken"],
    ["dynamic_buffer_overflow", "lose", "EINVAL"],
    ["dynamic_buffer_lap", "oldest", "taken"],
    ["dynamic_buffer_shrink_delay_ms", "100", "taken"],
  ])("%s: %j is %s", async (name, value, answer) => {
    const before = await daemon.read(10, name);
    expect(await store(at(name), value)).toBe(answer);
    if (answer !== "taken") expect(await daemon.read(10, name)).toBe(before);
  });

  test("reset_stats takes 1 alone, and only while dynamic buffering is on", async () => {
    await daemon.write(11, "dynamic_buffering", "0");
    const path = daemon.attribute(11, "dynamic_buffer_reset_stats");
    expect(await store(path, "1\n")).toBe("EINVAL");
    await daemon.write(11, "dynamic_buffering", "1");
    for (const value of ["0", "2", "1x"]) expect(await store(path, value)).toBe("EINVAL");
    const done = await shell(`echo 1 | tee ${path}`);
    expect(done).toMatchObject({ code: 0, stdout: "1\n" });
  });

  test("truncating succeeds and changes nothing", async () => {
    await daemon.write(11, "dynamic_buffering", "1");
    const path = daemon.attribute(11, "dynamic_buffering");
    expect((await shell(`: > ${path}; truncate -s 0 ${path}; echo -n '' > ${path}`)).code).toBe(0);
    expect(await daemon.read(11, "dynamic_buffering")).toBe("1\n");
  });

  test.each(["debug", "max_openers"])("parameters/%s is an int", async (name) => {
    const path = sys("module/v4l2loopback/parameters", name);
    const before = (await runProgram("cat", [path])).stdout;
    expect(await store(path, "18446744073709551615")).toBe("ERANGE");
    expect(await store(path, "many")).toBe("EINVAL");
    expect((await runProgram("cat", [path])).stdout).toBe(before);
    expect(await store(path, "2147483647")).toBe("taken");
    expect((await runProgram("cat", [path])).stdout).toBe("2147483647\n");
    expect(await store(path, before)).toBe("taken");
  });

  test("a default for devices to come is written at the module", async () => {
    const path = sys("module/v4l2loopback/parameters/dynamic_buffering");
    expect(await store(path, "1")).toBe("taken");
    expect((await runProgram("cat", [path])).stdout).toBe("1\n");
  });
});

describe("what may not be done", () => {
  test.each([
    ["echo 1 > name", "Permission denied"],
    ["cat dynamic_buffer_reset_stats", "Permission denied"],
    ["touch new", "Operation not permitted"],
    ["rm name", "Operation not permitted"],
    ["mkdir new", "Operation not permitted"],
    ["mv name other", "Operation not permitted"],
    ["ln -s name other", "Operation not permitted"],
    ["rmdir power", "Operation not permitted"],
    ["chmod 777 name", "Operation not permitted"],
    ["cat nothing", "No such file"],
  ])("%s: %s, for root as well", async (line, words) => {
    const done = await shell(`cd ${sys("devices/virtual/video4linux/video10")} && ${line}`);
    expect(done.code).not.toBe(0);
    expect(done.stderr).toContain(words);
  });
});
