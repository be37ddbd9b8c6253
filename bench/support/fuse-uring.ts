// FUSE over io_uring: whether the kernel here offers it. Root switches it on for new mounts by
//   echo Y > /sys/module/fuse/parameters/enable_uring
// The device doesn't ask for it, so nothing but the contender of that name is changed by it.
import { existsSync, readFileSync } from "node:fs";

const parameter = "/sys/module/fuse/parameters/enable_uring";

export const noFuseUring = "fuse.enable_uring is off, or this kernel has none";

export function hasFuseUring(): boolean {
  return existsSync(parameter) && readFileSync(parameter, "utf8").trim() === "Y";
}
