import { CodedError } from "../errors.js";
import { servingDaemon } from "../fuse/mountpoint.js";
import { requireDaemon } from "./mounted-devices.js";

const patienceMs = 10_000;

/** `umount`: asks the daemon that serves the directory to end, and waits until it has. */
export async function umount(mountpoint: string): Promise<void> {
  const pid = requireDaemon(mountpoint);
  process.kill(pid, "SIGTERM");
  const deadline = Date.now() + patienceMs;
  while (servingDaemon(mountpoint) !== undefined) {
    if (Date.now() > deadline) {
      throw new CodedError("ETIMEDOUT", `pid ${pid} still serves ${mountpoint}`);
    }
    await new Promise((done) => setTimeout(done, 20));
  }
}
