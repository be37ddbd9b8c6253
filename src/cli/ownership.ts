/** Who owns the device files, and what they may. */
import { readFileSync } from "node:fs";
import { UsageError } from "../errors.js";

export interface Ownership {
  uid: number;
  gid: number;
  mode: number;
}

function lookUp(file: string, name: string): number | undefined {
  try {
    for (const line of readFileSync(file, "utf8").split("\n")) {
      const [entry, , id] = line.split(":");
      if (entry === name && id !== undefined) return Number(id);
    }
  } catch {
    // Without the file there are no names.
  }
  return undefined;
}

/** In a user namespace, files of an id that is not mapped there are nobody's to open. */
function isMapped(gid: number): boolean {
  try {
    return readFileSync("/proc/self/gid_map", "utf8")
      .trim()
      .split("\n")
      .some((line) => {
        const [first = 0, , count = 0] = line.trim().split(/\s+/).map(Number);
        return gid >= first && gid < first + count;
      });
  } catch {
    return true;
  }
}

function videoGroup(): number | undefined {
  const gid = lookUp("/etc/group", "video");
  return gid !== undefined && isMapped(gid) ? gid : undefined;
}

function idOf(flag: string, file: string, given: string): number {
  const id = /^\d+$/.test(given) ? Number(given) : lookUp(file, given);
  if (id === undefined) throw new UsageError(`${flag} ${given}: there is no such ${flag.slice(2)}`);
  return id;
}

/** As udev leaves a video device: 0660, root:video where that group exists; a user's own else. */
export function ownership(flags: { user?: string; group?: string; mode?: string }): Ownership {
  const uid = process.getuid?.() ?? 0;
  const gid = process.getgid?.() ?? 0;
  if (flags.mode !== undefined && !/^[0-7]{1,4}$/.test(flags.mode)) {
    throw new UsageError(`--mode ${flags.mode}: not an octal number such as 0660`);
  }
  const mode = Number.parseInt(flags.mode ?? "660", 8);
  if (mode > 0o777) throw new UsageError(`--mode ${flags.mode}: above 0777`);
  return {
    uid: flags.user === undefined ? uid : idOf("--user", "/etc/passwd", flags.user),
    gid:
      flags.group === undefined
        ? uid === 0
          ? (videoGroup() ?? gid)
          : gid
        : idOf("--group", "/etc/group", flags.group),
    mode,
  };
}
