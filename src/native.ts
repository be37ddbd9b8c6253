/**
 * The addon's face: what the C++ core offers to TypeScript, and how the addon is found.
 *
 * Errors thrown by the addon are `Error`s with a `.code` such as `EINVAL` or `EBUSY` and one clear
 * sentence as their message.
 */
import { createRequire } from "node:module";

/** What a log line tells; the addon never writes to a stream itself. */
export interface NativeLogRecord {
  level: "debug" | "info" | "warn" | "error";
  /** The device's number (`10` for video10), or -1 for the whole mount. */
  device: number;
  /** Without the `v4l2-loopback` prefix, one line. */
  message: string;
}

export type Overflow = "block" | "drop";
export type Lap = "newest" | "oldest";

/** The ring's parameters; sizes in bytes, times in milliseconds, watermarks in percent of `size`. */
export interface RingParameters {
  dynamic: boolean;
  /** Frames that a static ring holds. */
  maxBuffers: number;
  /** 0: two frames of the current format, and it follows the format. */
  min: number;
  /** 0: the smaller of 256 MiB and an eighth of the memory that we may use. */
  max: number;
  highWatermark: number;
  lowWatermark: number;
  shrinkDelayMs: number;
  overflow: Overflow;
  stallTimeoutMs: number;
  lap: Lap;
}

/** One consistent reading, taken under the ring's lock. Frames, bytes and nanoseconds. */
export interface RingCounters {
  size: number;
  used: number;
  /** Bytes of memory that the ring's slots have touched. */
  resident: number;
  heldFrames: number;
  publishedFrames: number;
  publishedBytes: number;
  deliveredFrames: number;
  deliveredBytes: number;
  droppedFrames: number;
  droppedBytes: number;
  leftFrames: number;
  owedFrames: number;
  abortedFrames: number;
  expandCount: number;
  expandNs: number;
  expandNsMax: number;
  shrinkCount: number;
  shrinkNs: number;
  shrinkNsMax: number;
  commitNs: number;
  releaseNs: number;
  producers: number;
  consumers: number;
  stalledConsumers: number;
  uptimeMs: number;
  readOffset: number;
  writeOffset: number;
  /** Milliseconds since the last resize of each kind; -1 where there was none since the reset. */
  lastExpandMs: number;
  lastShrinkMs: number;
}

/** What one consumer was given; the last row of a reading is the sum over all, past ones included. */
export interface ConsumerRow {
  /** 0 in the sum's row. */
  pid: number;
  /** `total` in the sum's row. */
  command: string;
  published: number;
  delivered: number;
  dropped: number;
  owed: number;
  left: number;
  owedBytes: number;
  lagMs: number;
}

/** What is the same for a device's ring and for a ring of its own. */
export interface RingControl {
  /** The values in force: `min` and `max` are never 0 here. */
  parameters(): RingParameters;
  /** Changes some; all or nothing. Throws EINVAL where they contradict one another. */
  setParameters(changes: Partial<RingParameters>): void;
  counters(): RingCounters;
  /** One row a consumer and, last, their sum. */
  consumers(): ConsumerRow[];
  resetCounters(): void;
}

/** A ring without a device, for library users and tests. Never waits. */
export interface NativeRing extends RingControl {
  /** Returns an id. Throws EBUSY for a second producer of a static ring. */
  joinProducer(): number;
  leaveProducer(id: number): void;
  joinConsumer(command?: string): number;
  leaveConsumer(id: number): void;
  /** Publishes a copy; false where the ring is full and its policy is to wait. */
  publish(producer: number, payload: Uint8Array): boolean;
  /** A copy of the next frame, or null where nothing is owed. */
  take(consumer: number): { sequence: number; timestampNs: bigint; payload: Buffer } | null;
  /** Lets time pass: shrinking happens here. Tests turn the clock with `advanceClock`. */
  tick(): void;
  /** Only for a ring made with `manualClock`. */
  advanceClock(ms: number): void;
  setSizeimage(bytes: number): void;
  close(): void;
}

export interface DeviceOptions {
  videoNr: number;
  /** The minor of `dev`, for the bus and for STAT's st_rdev where it is shown. */
  minor: number;
  /** At most 31 bytes. */
  cardLabel: string;
  exclusiveCaps: boolean;
  maxOpeners: number;
  maxWidth: number;
  maxHeight: number;
  minWidth: number;
  minHeight: number;
  ring: Partial<RingParameters>;
}

export interface NativeDevice extends RingControl {
  readonly videoNr: number;
  /** `YUYV:640x480@30` while somebody streams or the format is kept, else "". */
  format(): string;
  /** Frames a second as a fraction; EINVAL outside what V4L2 can say. */
  setRate(numerator: number, denominator: number): void;
  /** Buffers of the streaming opener that has most. */
  buffers(): number;
  /** `capture` while a producer streams. */
  state(): "output" | "capture";
  maxOpeners(): number;
  /** EINVAL below the number of producers and consumers there are. */
  setMaxOpeners(count: number): void;
  /** Opened right now, by whomever. */
  openCount(): number;
}

/** What a program asks of the control device, or what `controlAdd` asks for. 0: the default. */
export interface ControlSetup {
  /** -1: the first free one. */
  videoNr: number;
  /** Empty: one is made up. */
  cardLabel: string;
  exclusiveCaps: boolean;
  maxBuffers: number;
  maxOpeners: number;
  maxWidth: number;
  maxHeight: number;
}

export interface ControlCall extends ControlSetup {
  /** For `answerControl`. */
  ticket: bigint;
  /** Else it removes `videoNr`. */
  adds: boolean;
  minWidth: number;
  minHeight: number;
}

export type IoMode = "passthrough" | "page-cache" | "read-write";

export interface DeviceMountOptions {
  /** An existing, empty directory: `…/dev`. */
  mountpoint: string;
  allowOther: boolean;
  /** Owner and permission bits of the device files. */
  uid: number;
  gid: number;
  mode: number;
  /** `auto` tries passthrough, then the page cache, then read/write only. */
  ioMode: "auto" | IoMode;
  log: (record: NativeLogRecord) => void;
  /** Called once if the session ends other than by `stop`, e.g. because somebody unmounted it. */
  ended: () => void;
  /** A program waits until this call is answered. */
  control: (call: ControlCall) => void;
}

/** The `/dev` half: one FUSE session on a thread of its own that never calls JavaScript but for logs. */
export interface NativeDeviceMount {
  readonly ioMode: IoMode;
  addDevice(options: DeviceOptions): NativeDevice;
  /** Throws EBUSY while it is open, ENODEV where there is none. */
  removeDevice(videoNr: number): void;
  devices(): NativeDevice[];
  /** `result` is what the program's ioctl(2) returns, or a negative errno. */
  answerControl(ticket: bigint, result: number): void;
  /** Ends every parked request with an error, unmounts, joins the thread. Idempotent. */
  stop(): void;
}

export interface NativeAddon {
  Ring: new (options: {
    sizeimage: number;
    parameters?: Partial<RingParameters>;
    manualClock?: boolean;
  }) => NativeRing;
  /** Mounts at once; throws with the errno's name in `.code`. */
  DeviceMount: new (
    options: DeviceMountOptions,
  ) => NativeDeviceMount;
  /** dlopen with RTLD_GLOBAL, so that a later library finds its symbols. */
  loadLibrary(path: string): void;
  /**
   * Becomes another program, with the descriptors, signals and terminal that this process was
   * started with. Returns only by throwing.
   */
  exec(path: string, args: string[]): never;
  /** Adds a device by the control device at `path`; its number. Throws with the errno's name. */
  controlAdd(path: string, setup: ControlSetup): number;
  controlRemove(path: string, videoNr: number): void;
  /** For the very end: Node's exit crashes on a terminal that has hung up. */
  leaveTerminal(): void;
  /** Detaches what is mounted at `path`: umount2 with MNT_DETACH, else `fusermount3 -u -z`. */
  unmount(path: string): void;
  /** All fourccs the device can carry, in the order of ENUM_FMT. */
  pixelFormats(): { fourcc: string; description: string; compressed: boolean }[];
}

const require = createRequire(import.meta.url);
export const native: NativeAddon = require("../native/build/Release/v4l2loopback_fuse.node");
