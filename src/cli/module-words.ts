/** `parameter=value` words, as modprobe takes them. */
import { kstrtoul } from "../buffer/kstrtoul.js";
import { bufferParameters, parseSwitch } from "../buffer/parameters.js";
import type { DeviceDescription } from "../device/registry.js";
import { messageOf, UsageError } from "../errors.js";
import type { RingParameters } from "../native.js";
import { nearest } from "./nearest.js";

export interface ModuleWords {
  devices: DeviceDescription[];
  debug: number;
  maxOpeners: number;
  maxWidth: number;
  maxHeight: number;
  maxBuffers: number;
  ring: Partial<RingParameters>;
  /** The `dynamic_buffer_*` words as typed, for what only the ring can find wrong with them. */
  bufferWords: string[];
}

const mostDevices = 1000;
const longestLabel = 31;
const largestNumber = 65535;

const moduleParameterHelp: Record<string, string> = {
  devices: "how many devices (1)",
  video_nr: "their numbers, -1: the first free one (-1)",
  card_label: "their names, at most 31 bytes each",
  dynamic_buffering: "0 or 1 (0)",
  max_buffers: "frames that a device holds while dynamic buffering is off (2)",
  max_openers: "producers and consumers of a device at a time (10)",
  exclusive_caps: "0 or 1 for each device: announce one direction at a time (0)",
  max_width: "largest width (8192)",
  max_height: "largest height (8192)",
  debug: "0: as few log lines as possible (0)",
};

/** Every word that is taken, with what it is for. */
export const parameterHelp: Record<string, string> = {
  ...moduleParameterHelp,
  ...Object.fromEntries(bufferParameters.map(({ name, help }) => [name, help])),
};

function wrong(word: string, reason: string): never {
  throw new UsageError(`${word}: ${reason}`);
}

function whole(word: string, text: string, least: number, most: number): number {
  let value: number;
  try {
    value = kstrtoul(text);
  } catch (error) {
    return wrong(word, messageOf(error));
  }
  if (value < least || value > most) wrong(word, `${text} is not within ${least} and ${most}`);
  return value;
}

function onOff(word: string, text: string): boolean {
  if (/^[yYtT]$/.test(text)) return true;
  if (/^[nNfF]$/.test(text)) return false;
  try {
    return parseSwitch(text);
  } catch (error) {
    return wrong(word, messageOf(error));
  }
}

function parseNumber(word: string, text: string): number {
  return text === "-1" ? -1 : whole(word, text, 0, largestNumber);
}

/** Throws UsageError with one sentence that names the wrong word and what is allowed. */
export function parseModuleWords(words: readonly string[]): ModuleWords {
  const values = new Map<string, string>();
  for (const word of words) {
    const at = word.indexOf("=");
    const name = at < 0 ? word : word.slice(0, at);
    if (!Object.hasOwn(parameterHelp, name)) {
      const meant = nearest(name, Object.keys(parameterHelp));
      throw new UsageError(
        `unknown parameter ${name}${meant === undefined ? "." : `, did you mean ${meant}?`} ` +
          `Allowed are ${Object.keys(parameterHelp).join(", ")}`,
      );
    }
    if (at < 0) wrong(word, `has no value; write ${name}=VALUE`);
    values.set(name, word.slice(at + 1));
  }
  const value = (name: string) => values.get(name);
  const number = (name: string, initial: number, least: number, most: number) => {
    const text = value(name);
    return text === undefined ? initial : whole(`${name}=${text}`, text, least, most);
  };

  const numbers = value("video_nr")
    ?.split(",")
    .map((text) => parseNumber(`video_nr=${value("video_nr")}`, text));
  const fixed = numbers?.filter((each) => each !== -1) ?? [];
  const twice = fixed.find((each, at) => fixed.indexOf(each) !== at);
  if (twice !== undefined) wrong(`video_nr=${value("video_nr")}`, `${twice} is there twice`);
  const labels = value("card_label")?.split(",");
  for (const label of labels ?? []) {
    const bytes = Buffer.byteLength(label);
    if (bytes > longestLabel) {
      wrong("card_label", `"${label}" has ${bytes} bytes, at most ${longestLabel} are allowed`);
    }
  }
  const caps = value("exclusive_caps")
    ?.split(",")
    .map((text) => onOff(`exclusive_caps=${value("exclusive_caps")}`, text));

  const count = number("devices", Math.max(numbers?.length ?? 1, 1), 1, mostDevices);
  if ((numbers?.length ?? 0) > count) {
    wrong(`video_nr=${value("video_nr")}`, `names ${numbers?.length} devices, devices is ${count}`);
  }
  const maxBuffers = number("max_buffers", 2, 1, 1024);
  const ring: Partial<RingParameters> = { maxBuffers };
  const dynamic = value("dynamic_buffering");
  ring.dynamic = dynamic !== undefined && onOff(`dynamic_buffering=${dynamic}`, dynamic);
  const bufferWords: string[] = [];
  for (const parameter of bufferParameters) {
    const text = value(parameter.name);
    if (text === undefined) continue;
    bufferWords.push(`${parameter.name}=${text}`);
    try {
      Object.assign(ring, { [parameter.key]: parameter.parse(text) });
    } catch (error) {
      wrong(`${parameter.name}=${text}`, messageOf(error));
    }
  }
  return {
    devices: Array.from({ length: count }, (_, at) => {
      const label = labels?.[at];
      return {
        videoNr: numbers?.[at] ?? -1,
        ...(label === undefined || label === "" ? {} : { cardLabel: label }),
        // As upstream: one value holds for its own device alone.
        exclusiveCaps: caps?.[at] ?? false,
      };
    }),
    debug: number("debug", 0, 0, 1000),
    maxOpeners: number("max_openers", 10, 0, 0xffffffff),
    maxWidth: number("max_width", 8192, 1, 65536),
    maxHeight: number("max_height", 8192, 1, 65536),
    maxBuffers,
    ring,
    bufferWords,
  };
}
