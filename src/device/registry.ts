/** All devices of a mount: numbers, minors, adding and removing. */
import { type BigIntStats, lstatSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { CodedError } from "../errors.js";
import type { NativeDeviceMount, RingParameters } from "../native.js";
import { VideoDevice } from "./video-device.js";

/** The major of video4linux. */
export const videoMajor = 81;

const firstFreeLimit = 65536;

export interface DeviceDescription {
  /** -1: the first free one. */
  videoNr: number;
  /** Unset: as upstream names it. */
  cardLabel?: string;
  exclusiveCaps: boolean;
  /** What is not as for all devices. */
  limits?: Partial<DeviceLimits>;
}

export interface DeviceLimits {
  maxOpeners: number;
  maxBuffers: number;
  minWidth: number;
  minHeight: number;
  maxWidth: number;
  maxHeight: number;
}

/** What holds for all devices, and for those added later. */
export interface DeviceDefaults {
  maxOpeners: number;
  maxWidth: number;
  maxHeight: number;
  ring: Partial<RingParameters>;
}

/** What the host has already: its numbers of videoN, and its minors of major 81. */
export interface HostDevices {
  numbers: ReadonlySet<number>;
  minors: ReadonlySet<number>;
}

/** Read once, before our own mount could be seen. */
export function readHostDevices(dev = "/dev", sysDevChar = "/sys/dev/char"): HostDevices {
  const names = (folder: string) => {
    try {
      return readdirSync(folder);
    } catch {
      return [];
    }
  };
  const matches = (folder: string, pattern: RegExp) =>
    new Set(
      names(folder).flatMap((name) => {
        const found = pattern.exec(name)?.[1];
        return found === undefined ? [] : [Number(found)];
      }),
    );
  // A container may have device files, and no /sys that tells of them.
  const minors = matches(sysDevChar, /^81:(\d+)$/);
  for (const name of names(dev)) {
    const minor = videoMinor(join(dev, name));
    if (minor !== undefined) minors.add(minor);
  }
  return { numbers: matches(dev, /^video(\d+)$/), minors };
}

/** The minor of a character device of major 81; undefined for anything else. */
function videoMinor(path: string): number | undefined {
  let stat: BigIntStats;
  try {
    // A link may lead into a dead mount; it is no device itself.
    stat = lstatSync(path, { bigint: true });
  } catch {
    return undefined;
  }
  if (!stat.isCharacterDevice()) return undefined;
  // How Linux packs a device number: twelve bits of the major from bit 8, the minor around it.
  const { rdev } = stat;
  if (((rdev >> 8n) & 0xfffn) !== BigInt(videoMajor)) return undefined;
  return Number((rdev & 0xffn) | ((rdev >> 12n) & 0xfff00n));
}

export class DeviceRegistry {
  private readonly byNumber = new Map<number, VideoDevice>();

  constructor(
    private readonly mount: NativeDeviceMount,
    private readonly host: HostDevices,
    readonly defaults: DeviceDefaults,
  ) {}

  /** In the order of their numbers. */
  list(): VideoDevice[] {
    return [...this.byNumber.values()].sort((a, b) => a.number - b.number);
  }

  get(number: number): VideoDevice | undefined {
    return this.byNumber.get(number);
  }

  /** Throws EEXIST where the number is taken, EINVAL where the ring's parameters contradict. */
  add(description: DeviceDescription): VideoDevice {
    const { maxBuffers, ...limits } = description.limits ?? {};
    const { ring: allRings, ...all } = this.defaults;
    const number = description.videoNr === -1 ? this.freeNumber() : description.videoNr;
    if (this.byNumber.has(number)) {
      throw new CodedError("EEXIST", `video${number} is there already`);
    }
    const cardLabel = description.cardLabel ?? `Dummy video device (0x${hex(number)})`;
    const minor = this.freeMinor();
    const native = this.mount.addDevice({
      videoNr: number,
      minor,
      cardLabel,
      exclusiveCaps: description.exclusiveCaps,
      minWidth: Math.min(2, limits.maxWidth ?? all.maxWidth),
      minHeight: 1,
      ...all,
      ...limits,
      ring: maxBuffers === undefined ? allRings : { ...allRings, maxBuffers },
    });
    const device = new VideoDevice(native, minor, cardLabel);
    this.byNumber.set(number, device);
    return device;
  }

  /** Throws EBUSY while it is open, ENODEV where there is none. */
  remove(number: number): void {
    this.mount.removeDevice(number);
    this.byNumber.delete(number);
  }

  private freeNumber(): number {
    for (let number = 0; number < firstFreeLimit; number += 1) {
      if (!this.byNumber.has(number) && !this.host.numbers.has(number)) return number;
    }
    throw new CodedError("ENFILE", "no number of a video device is free");
  }

  private freeMinor(): number {
    const ours = new Set(this.list().map((device) => device.minor));
    let minor = 0;
    while (ours.has(minor) || this.host.minors.has(minor)) minor += 1;
    return minor;
  }
}

function hex(number: number): string {
  return number.toString(16).toUpperCase().padStart(4, "0");
}
