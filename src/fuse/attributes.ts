/**
 * The attributes of a device and of the module: what each shows, and what may be stored into it.
 * Contents are those that the video4linux core and v4l2loopback write. Knows no FUSE.
 *
 * `store` gets the bytes of one write(2) as they came; it throws a CodedError and changes nothing
 * where they are not one value.
 */
import { kstrtoul } from "../buffer/kstrtoul.js";
import { bufferParameters, parseSwitch } from "../buffer/parameters.js";
import { consumersText, countersText, inactiveText, statisticsText } from "../buffer/statistics.js";
import { type DeviceRegistry, videoMajor } from "../device/registry.js";
import type { VideoDevice } from "../device/video-device.js";
import { CodedError } from "../errors.js";

export interface Attribute {
  name: string;
  /** Permission bits. */
  mode: number;
  show?(): string;
  store?(text: string): void;
}

function line(value: string | number): string {
  return `${value}\n`;
}

function invalid(text: string, allowed: string): never {
  throw new CodedError("EINVAL", `${JSON.stringify(text)} is not ${allowed}`);
}

const largestInt = 2 ** 31 - 1;

/** As a module parameter of type int. */
function parseInt32(text: string): number {
  const value = kstrtoul(text);
  if (value > largestInt) {
    throw new CodedError("ERANGE", `${text.trim()} is above ${largestInt}`);
  }
  return value;
}

/** What udev and others write into `uevent`. */
const uevents = ["add", "remove", "change", "move", "online", "offline", "bind", "unbind"];

export function deviceAttributes(device: VideoDevice): Attribute[] {
  const { native } = device;
  return [
    { name: "buffers", mode: 0o444, show: () => line(native.buffers()) },
    { name: "dev", mode: 0o444, show: () => line(`${videoMajor}:${device.minor}`) },
    {
      name: "dev_debug",
      mode: 0o644,
      show: () => line(device.devDebug),
      store: (text) => {
        const value = kstrtoul(text);
        if (value > 0xffff) invalid(text, "within 0 and 65535");
        device.devDebug = value;
      },
    },
    {
      name: "dynamic_buffer_consumers",
      mode: 0o444,
      show: () => consumersText(native.consumers()),
    },
    { name: "dynamic_buffer_counters", mode: 0o444, show: () => countersText(native.counters()) },
    {
      name: "dynamic_buffer_reset_stats",
      mode: 0o200,
      store: (text) => {
        if (!native.parameters().dynamic) {
          throw new CodedError("EINVAL", "dynamic buffering is off: there is nothing to reset");
        }
        if (kstrtoul(text) !== 1) invalid(text, "1");
        native.resetCounters();
      },
    },
    {
      name: "dynamic_buffer_stats",
      mode: 0o444,
      show: () => (native.parameters().dynamic ? statisticsText(native.counters()) : inactiveText),
    },
    {
      name: "dynamic_buffering",
      mode: 0o644,
      show: () => line(native.parameters().dynamic ? 1 : 0),
      store: (text) => native.setParameters({ dynamic: parseSwitch(text) }),
    },
    ...bufferParameters.map(
      (parameter): Attribute => ({
        name: parameter.name,
        mode: 0o644,
        show: () => line(native.parameters()[parameter.key]),
        store: (text) => native.setParameters({ [parameter.key]: parameter.parse(text) }),
      }),
    ),
    {
      name: "format",
      mode: 0o644,
      show: () => {
        const format = native.format();
        return format === "" ? "" : line(format);
      },
      store: (text) => {
        const rate = /^@(\d+)(?:\/(\d+))?\n?$/.exec(text);
        if (rate === null) invalid(text, "@RATE or @RATE/DIVISOR");
        native.setRate(Number(rate[1]), Number(rate[2] ?? 1));
      },
    },
    { name: "index", mode: 0o444, show: () => line(0) },
    {
      name: "max_openers",
      mode: 0o644,
      show: () => line(native.maxOpeners()),
      store: (text) => native.setMaxOpeners(kstrtoul(text)),
    },
    { name: "name", mode: 0o444, show: () => line(device.cardLabel) },
    { name: "state", mode: 0o444, show: () => line(native.state()) },
    {
      name: "uevent",
      mode: 0o644,
      show: () => `MAJOR=${videoMajor}\nMINOR=${device.minor}\nDEVNAME=${device.name}\n`,
      store: (text) => {
        const action = text.replace(/\n$/, "").split(" ")[0] ?? "";
        if (!uevents.includes(action)) invalid(text, `one of ${uevents.join(", ")}`);
      },
    },
  ];
}

/** `power/`: as of a device without power management. */
export function powerAttributes(device: VideoDevice): Attribute[] {
  const constant = (name: string, value: string): Attribute => ({
    name,
    mode: 0o444,
    show: () => line(value),
  });
  return [
    {
      name: "async",
      mode: 0o644,
      show: () => line("disabled"),
      store: (text) => {
        if (!/^(enabled|disabled)\n?$/.test(text)) invalid(text, "enabled or disabled");
      },
    },
    {
      name: "autosuspend_delay_ms",
      mode: 0o644,
      // As for every device that does not autosuspend.
      show: () => {
        throw new CodedError("EIO", "the device does not autosuspend");
      },
      store: () => {
        throw new CodedError("EIO", "the device does not autosuspend");
      },
    },
    {
      name: "control",
      mode: 0o644,
      show: () => line(device.powerControl),
      store: (text) => {
        const value = text.replace(/\n$/, "");
        if (value !== "auto" && value !== "on") invalid(text, "auto or on");
        device.powerControl = value;
      },
    },
    constant("runtime_active_kids", "0"),
    constant("runtime_active_time", "0"),
    constant("runtime_enabled", "disabled"),
    constant("runtime_status", "unsupported"),
    constant("runtime_suspended_time", "0"),
    constant("runtime_usage", "0"),
  ];
}

/** The version of v4l2loopback whose behaviour we follow. */
export const moduleVersion = "0.15.0";

/** What modprobe would have been given: per device, padded to the eight that upstream has. */
export interface ModuleSettings {
  debug: number;
  videoNr: readonly number[];
  exclusiveCaps: readonly boolean[];
  maxBuffers: number;
}

const listedDevices = 8;

function listed<Value>(values: readonly Value[], rest: Value): Value[] {
  return Array.from({ length: Math.max(listedDevices, values.length) }, (_, at) =>
    at < values.length ? (values[at] as Value) : rest,
  );
}

/** `sys/module/v4l2loopback/parameters/`; those that can be written hold for devices to come. */
export function moduleParameters(registry: DeviceRegistry, settings: ModuleSettings): Attribute[] {
  const { defaults } = registry;
  return [
    {
      name: "debug",
      mode: 0o644,
      show: () => line(settings.debug),
      store: (text) => {
        settings.debug = parseInt32(text);
      },
    },
    {
      name: "dynamic_buffering",
      mode: 0o644,
      show: () => line(defaults.ring.dynamic ? 1 : 0),
      store: (text) => {
        defaults.ring.dynamic = parseSwitch(text);
      },
    },
    {
      name: "exclusive_caps",
      mode: 0o444,
      show: () =>
        line(
          listed(settings.exclusiveCaps, false)
            .map((on) => (on ? "Y" : "N"))
            .join(","),
        ),
    },
    { name: "max_buffers", mode: 0o444, show: () => line(settings.maxBuffers) },
    { name: "max_height", mode: 0o444, show: () => line(defaults.maxHeight) },
    {
      name: "max_openers",
      mode: 0o644,
      show: () => line(defaults.maxOpeners),
      store: (text) => {
        defaults.maxOpeners = parseInt32(text);
      },
    },
    { name: "max_width", mode: 0o444, show: () => line(defaults.maxWidth) },
    { name: "video_nr", mode: 0o444, show: () => line(listed(settings.videoNr, -1).join(",")) },
  ];
}
