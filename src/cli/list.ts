import { join } from "node:path";
import { deviceNames, readAttribute } from "./mounted-devices.js";

/** `list`: one line a device: its path, state, format and label. */
export function list(mountpoint: string): string {
  return deviceNames(mountpoint)
    .map((name) => {
      const show = (attribute: string) => readAttribute(mountpoint, name, attribute).trim();
      const columns = [
        join(mountpoint, "dev", name),
        show("state"),
        show("format") || "-",
        show("name"),
      ];
      return `${columns.join("\t")}\n`;
    })
    .join("");
}
