/** What a mounted daemon shows, read from its files as any program would. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { CodedError } from "../errors.js";
import { servingDaemon } from "../fuse/mountpoint.js";

/** Throws ENOENT, with one sentence, where no daemon serves the directory. */
export function requireDaemon(mountpoint: string): number {
  const pid = servingDaemon(mountpoint);
  if (pid === undefined) {
    throw new CodedError("ENOENT", `nothing of ours is mounted at ${mountpoint}`);
  }
  return pid;
}

/** Names of the devices, in the order of their numbers. */
export function deviceNames(mountpoint: string): string[] {
  requireDaemon(mountpoint);
  return readdirSync(join(mountpoint, "sys/class/video4linux")).sort(
    (a, b) => Number(a.slice(5)) - Number(b.slice(5)),
  );
}

export function readAttribute(mountpoint: string, device: string, name: string): string {
  return readFileSync(join(mountpoint, "sys/class/video4linux", device, name), "utf8");
}

/** `10`, `video10` or a path that ends so; throws ENOENT, naming those there are. */
export function findDevice(mountpoint: string, given: string): string {
  const names = deviceNames(mountpoint);
  const name = /^\d+$/.test(given) ? `video${given}` : (given.split("/").pop() ?? given);
  if (!names.includes(name)) {
    throw new CodedError("ENOENT", `there is no ${given}; there are ${names.join(", ")}`);
  }
  return name;
}
