/** What programs ask of the control device: devices are added and removed while others work. */
import { constants } from "node:os";
import { CodedError, codeOf, messageOf } from "../errors.js";
import type { ControlCall } from "../native.js";
import type { DeviceLimits, DeviceRegistry } from "./registry.js";

/** Does what is asked; what the program's ioctl(2) returns, or a negative errno. */
export function control(
  registry: DeviceRegistry,
  call: ControlCall,
  refused: (sentence: string) => void,
): number {
  try {
    if (call.adds) return add(registry, call);
    registry.remove(call.videoNr);
    return 0;
  } catch (error) {
    refused(messageOf(error));
    return -(constants.errno[codeOf(error) as keyof typeof constants.errno] ?? constants.errno.EIO);
  }
}

function add(registry: DeviceRegistry, call: ControlCall): number {
  const { maxOpeners, maxBuffers, minWidth, minHeight, maxWidth, maxHeight } = call;
  const given = { maxOpeners, maxBuffers, minWidth, minHeight, maxWidth, maxHeight };
  // What is not above zero is left to its default.
  const limits = Object.fromEntries(
    Object.entries(given).filter(([, value]) => value > 0),
  ) as Partial<DeviceLimits>;
  if ((limits.maxWidth ?? Number.POSITIVE_INFINITY) < minWidth) refuse("width", minWidth, maxWidth);
  if ((limits.maxHeight ?? Number.POSITIVE_INFINITY) < minHeight) {
    refuse("height", minHeight, maxHeight);
  }
  const device = registry.add({
    videoNr: Math.max(call.videoNr, -1),
    ...(call.cardLabel === "" ? {} : { cardLabel: call.cardLabel }),
    exclusiveCaps: call.exclusiveCaps,
    limits,
  });
  return device.number;
}

function refuse(what: string, least: number, most: number): never {
  throw new CodedError("EINVAL", `the least ${what}, ${least}, is above the most, ${most}`);
}
