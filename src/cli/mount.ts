/** `mount`: both halves of the device, in the foreground, until a signal ends it. */
import { constants } from "node:os";
import { control } from "../device/control.js";
import { DeviceRegistry, readHostDevices } from "../device/registry.js";
import { codeOf, messageOf, UsageError } from "../errors.js";
import { mountTree, unmountTree } from "../fuse/fuse-adapter.js";
import {
  type Mountpoint,
  mountedPaths,
  prepareMountpoint,
  releaseMountpoint,
  waitForMount,
} from "../fuse/mountpoint.js";
import { Tree } from "../fuse/tree.js";
import { createLog, type Log, type LogFormat, type LogLevel } from "../log.js";
import { type IoMode, type NativeDeviceMount, native } from "../native.js";
import { exitCodes } from "./exit-codes.js";
import type { ModuleWords } from "./module-words.js";
import type { Ownership } from "./ownership.js";
import { SystemPlaces } from "./system-places.js";

export interface MountFlags {
  mountpoint: string;
  allowOther: boolean;
  /** At the real places, for everybody. */
  system?: boolean;
  ownership: Ownership;
  ioMode: "auto" | IoMode;
  logLevel: LogLevel;
  logFormat: LogFormat;
}

/** Serves until SIGINT, SIGTERM or SIGHUP; resolves with the exit code. */
export async function mount(words: ModuleWords, flags: MountFlags): Promise<number> {
  let end: (code: number) => void = () => {};
  const ended = new Promise<number>((resolve) => {
    end = resolve;
  });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => end(exitCodes.ok));
  }
  if (flags.system) SystemPlaces.requireRoot();
  const log = createLog(flags.logLevel, flags.logFormat);
  // Before anything is mounted, so that none of ours is taken for the host's.
  const host = readHostDevices();
  const mountpoint = prepareMountpoint(flags.mountpoint);
  const daemon = new Daemon(mountpoint, log);
  // Whatever ends us, nothing stays mounted.
  process.on("exit", () => daemon.abandon());
  try {
    await daemon.start(words, flags, host, () => end(exitCodes.failure));
    process.stdout.write(daemon.greeting());
    const code = await ended;
    await daemon.stop();
    native.leaveTerminal();
    return code;
  } catch (error) {
    // What went wrong first is what is to be said; if this fails too, `abandon` still comes.
    await daemon.stop().catch((second) => daemon.warn(messageOf(second)));
    throw error;
  }
}

class Daemon {
  private devices: NativeDeviceMount | undefined;
  private registry: DeviceRegistry | undefined;
  private places: SystemPlaces | undefined;
  private stopped = false;

  constructor(
    private readonly mountpoint: Mountpoint,
    private readonly log: Log,
  ) {}

  async start(
    words: ModuleWords,
    flags: MountFlags,
    host: ReturnType<typeof readHostDevices>,
    lost: () => void,
  ): Promise<void> {
    const { uid, gid, mode } = flags.ownership;
    this.devices = new native.DeviceMount({
      mountpoint: this.mountpoint.dev,
      allowOther: flags.allowOther,
      uid,
      gid,
      mode,
      ioMode: flags.ioMode,
      log: (record) => this.log.write(record),
      control: (call) => {
        const refused = (sentence: string) => this.warn(`the control device refuses: ${sentence}`);
        // It can be asked as soon as `dev` is mounted, which is a moment before.
        const result = this.registry
          ? control(this.registry, call, refused)
          : -constants.errno.EAGAIN;
        this.devices?.answerControl(call.ticket, result);
      },
      ended: () => {
        this.write("error", `${this.mountpoint.dev} was unmounted by somebody else`);
        lost();
      },
    });
    this.registry = new DeviceRegistry(this.devices, host, {
      maxOpeners: words.maxOpeners,
      maxWidth: words.maxWidth,
      maxHeight: words.maxHeight,
      ring: words.ring,
    });
    // Those with numbers of their own first: none of them is to be taken by a "first free".
    const order = [...words.devices].sort((a, b) => Number(a.videoNr < 0) - Number(b.videoNr < 0));
    for (const description of order) this.add(description, words.bufferWords);
    const tree = new Tree(this.registry, {
      debug: words.debug,
      videoNr: words.devices.map((each) => each.videoNr),
      exclusiveCaps: words.devices.map((each) => each.exclusiveCaps),
      maxBuffers: words.maxBuffers,
    });
    await mountTree(tree, this.mountpoint.sys, {
      allowOther: flags.allowOther,
      uid: process.getuid?.() ?? 0,
      gid: process.getgid?.() ?? 0,
    });
    if (flags.system) this.places = await SystemPlaces.take(this.mountpoint.path);
    this.write("debug", `mounted at ${this.mountpoint.path}, io mode ${this.devices.ioMode}`);
  }

  private add(description: ModuleWords["devices"][number], bufferWords: string[]): void {
    try {
      this.registry?.add(description);
    } catch (error) {
      // The parameters contradict one another: what was typed is wrong.
      if (codeOf(error) !== "EINVAL") throw error;
      throw new UsageError([bufferWords.join(" "), messageOf(error)].filter(Boolean).join(": "));
    }
  }

  greeting(): string {
    const { path } = this.mountpoint;
    const devices = this.registry?.list() ?? [];
    const first = devices[0];
    const [dev, sys] = this.places ? ["/dev", "/sys"] : [`${path}/dev`, `${path}/sys`];
    return [
      `v4l2loopback-fuse is mounted at ${path} (${this.devices?.ioMode})`,
      ...devices.map((each) => `  ${dev}/${each.name}  ${each.cardLabel}`),
      "Now, for example, in other terminals:",
      "  ffmpeg -re -f lavfi -i testsrc=size=640x480:rate=30 -pix_fmt yuyv422 -f v4l2 " +
        `${dev}/${first?.name}`,
      `  ffplay ${dev}/${first?.name}`,
      `  cat ${sys}/class/video4linux/${first?.name}/dynamic_buffer_stats`,
      "Ctrl-C unmounts.",
      "",
    ].join("\n");
  }

  async stop(): Promise<void> {
    if (this.stopped) return;
    await this.places?.giveBack();
    this.places = undefined;
    // Asked of the system: a start that failed half way may have mounted it, and somebody else may
    // have unmounted it.
    if (mountedPaths().includes(this.mountpoint.sys)) {
      try {
        await unmountTree(this.mountpoint.sys);
      } catch (error) {
        this.warn(messageOf(error));
      }
    }
    this.devices?.stop();
    await waitForMount(this.mountpoint.dev, false);
    releaseMountpoint(this.mountpoint);
    this.stopped = true;
    this.log.flush();
  }

  /** On the way out, when nothing can be waited for any more. */
  abandon(): void {
    if (this.stopped) return;
    this.stopped = true;
    this.devices?.stop();
    for (const path of [this.mountpoint.sys, this.mountpoint.dev]) {
      try {
        native.unmount(path);
      } catch {
        // It was not mounted.
      }
    }
    try {
      releaseMountpoint(this.mountpoint);
    } catch {
      // What is left is cleared at the next start.
    }
  }

  warn(message: string): void {
    this.write("warn", message);
  }

  private write(level: "debug" | "warn" | "error", message: string): void {
    this.log.write({ level, device: -1, message });
  }
}
