/** Which numbers and minors the host has already. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readHostDevices } from "../../src/device/registry.js";

let folder = "";

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "v4l2loopback-host-"));
  for (const each of ["dev", "char"]) mkdirSync(join(folder, each));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("numbers come from names, minors from /sys and from the device files themselves", (context) => {
  writeFileSync(join(folder, "dev/video3"), "");
  writeFileSync(join(folder, "dev/video3x"), "");
  symlinkSync("nowhere", join(folder, "dev/video4"));
  for (const name of ["81:0", "81:7", "4:64"]) writeFileSync(join(folder, "char", name), "");
  const read = () => readHostDevices(join(folder, "dev"), join(folder, "char"));
  expect([...read().numbers].sort()).toEqual([3, 4]);
  expect([...read().minors].sort()).toEqual([0, 7]);

  try {
    execFileSync("mknod", [join(folder, "dev/vbi0"), "c", "81", "224"], { stdio: "ignore" });
    execFileSync("mknod", [join(folder, "dev/v4l-subdev0"), "c", "81", "300"], { stdio: "ignore" });
    execFileSync("mknod", [join(folder, "dev/tty"), "c", "4", "5"], { stdio: "ignore" });
  } catch {
    context.skip("device files can't be made here");
  }
  expect([...read().minors].sort((a, b) => a - b)).toEqual([0, 7, 224, 300]);
});

test("a host that has neither folder has no devices", () => {
  const none = readHostDevices(join(folder, "no-dev"), join(folder, "no-char"));
  expect([none.numbers.size, none.minors.size]).toEqual([0, 0]);
});
