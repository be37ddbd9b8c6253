/**
 * `mount --system`: the devices at their real places for everybody. A process of its own puts them
 * there, and takes them away when we end, in whatever way (native/run/guard.h).
 */
import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { CodedError, UsageError } from "../errors.js";

export const runProgram = fileURLToPath(
  new URL("../../native/build/Release/v4l2loopback_run", import.meta.url),
);

export class SystemPlaces {
  private constructor(
    private readonly guard: ChildProcess,
    private readonly ended: Promise<void>,
  ) {}

  /** Throws UsageError where we are not root. */
  static requireRoot(): void {
    if (process.getuid?.() !== 0) {
      throw new UsageError("--system changes /dev and /sys for everybody: only root may");
    }
  }

  /** Resolves when all is in its place. */
  static async take(mountpoint: string): Promise<SystemPlaces> {
    const guard = spawn(runProgram, ["system", mountpoint], { stdio: ["pipe", "pipe", "pipe"] });
    let complaint = "";
    guard.stderr.on("data", (data) => {
      complaint += data;
    });
    const ended = new Promise<void>((resolve) => guard.on("close", () => resolve()));
    await new Promise<void>((resolve, reject) => {
      guard.stdout.once("data", () => resolve());
      guard.on("error", reject);
      void ended.then(() =>
        reject(new CodedError("EIO", complaint.trim().replace(/^v4l2loopback-fuse: /, ""))),
      );
    });
    // It keeps nothing of ours running.
    guard.unref();
    return new SystemPlaces(guard, ended);
  }

  /** Resolves when all is as before. */
  async giveBack(): Promise<void> {
    this.guard.ref();
    this.guard.stdin?.end();
    await this.ended;
  }
}
