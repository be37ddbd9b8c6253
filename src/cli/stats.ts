import { deviceNames, findDevice, readAttribute } from "./mounted-devices.js";

/** `stats`: dynamic_buffer_stats of one device, or of all under their names. */
export function stats(mountpoint: string, device: string | undefined): string {
  const text = (name: string) => readAttribute(mountpoint, name, "dynamic_buffer_stats");
  if (device !== undefined) return text(findDevice(mountpoint, device));
  return deviceNames(mountpoint)
    .map((name) => `${name}\n${text(name)}`)
    .join("\n");
}
