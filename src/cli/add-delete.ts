/** `add` and `delete`: asked of the mounted daemon by its control device, as any program may. */
import { join } from "node:path";
import { CodedError, codeOf, UsageError } from "../errors.js";
import { native } from "../native.js";
import { findDevice, requireDaemon } from "./mounted-devices.js";
import { parseModuleWords } from "./module-words.js";

/** What the control device can be told; the rest is as the daemon was started with. */
const addable = [
  ...["video_nr", "card_label", "exclusive_caps"],
  ...["max_buffers", "max_openers", "max_width", "max_height"],
];

const controlOf = (mountpoint: string) => join(mountpoint, "dev/v4l2loopback");

/** Adds one device; the path of its file. */
export function add(mountpoint: string, words: readonly string[]): string {
  const unknown = words.find((word) => !addable.includes(word.split("=")[0] ?? ""));
  if (unknown !== undefined) {
    throw new UsageError(`${unknown}: add takes ${addable.join(", ")}`);
  }
  const parsed = parseModuleWords(words);
  const [device, second] = parsed.devices;
  if (device === undefined || second !== undefined) {
    throw new UsageError("add makes one device at a time: give one video_nr");
  }
  requireDaemon(mountpoint);
  const isTyped = (name: string) => words.some((word) => word.startsWith(`${name}=`));
  try {
    const number = native.controlAdd(controlOf(mountpoint), {
      videoNr: device.videoNr,
      cardLabel: device.cardLabel ?? "",
      exclusiveCaps: device.exclusiveCaps,
      maxBuffers: isTyped("max_buffers") ? parsed.maxBuffers : 0,
      maxOpeners: isTyped("max_openers") ? parsed.maxOpeners : 0,
      maxWidth: isTyped("max_width") ? parsed.maxWidth : 0,
      maxHeight: isTyped("max_height") ? parsed.maxHeight : 0,
    });
    return join(mountpoint, `dev/video${number}`);
  } catch (error) {
    if (codeOf(error) !== "EEXIST") throw error;
    throw new CodedError("EEXIST", `video${device.videoNr} is there already`);
  }
}

/** Removes devices, in the order given; throws at the first that can't be. */
export function remove(mountpoint: string, given: readonly string[]): void {
  for (const each of given) {
    const name = findDevice(mountpoint, each);
    try {
      native.controlRemove(controlOf(mountpoint), Number(name.slice("video".length)));
    } catch (error) {
      if (codeOf(error) !== "EBUSY") throw error;
      throw new CodedError("EBUSY", `${name} is open: close what uses it first`);
    }
  }
}
