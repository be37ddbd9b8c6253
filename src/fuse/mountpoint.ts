/**
 * The directory that we mount in: made, checked, cleared of what a killed daemon left, and taken
 * away again. Inside it lie `sys` and `dev`, each a mount, and `.daemon`, which names who serves.
 */
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmdirSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { CodedError, codeOf } from "../errors.js";
import { native } from "../native.js";

export interface Mountpoint {
  path: string;
  sys: string;
  dev: string;
  /** Directories that were made, innermost first: they go again. */
  made: string[];
}

const ownerFile = ".daemon";

/** Octal escapes are how mountinfo writes blanks and the like. */
function plainPath(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}

/** Paths of all mounts, as this process sees them. */
export function mountedPaths(): string[] {
  return readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .flatMap((line) => {
      const path = line.split(" ")[4];
      return path === undefined ? [] : [plainPath(path)];
    });
}

/** The path with every link on the way followed: the name that mountinfo will have for it. */
function withoutLinks(given: string): string {
  const path = resolve(given);
  const missing: string[] = [];
  for (let each = path; ; each = dirname(each)) {
    try {
      return join(realpathSync(each), ...missing);
    } catch (error) {
      // Of any other trouble, looking at the path itself tells.
      if (!["ENOENT", "ENOTCONN"].includes(codeOf(error)) || each === "/") return path;
      missing.unshift(basename(each));
    }
  }
}

/** Resolves when the path is (or is no longer) a mount; rejects after 10 s. */
export async function waitForMount(path: string, present: boolean): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (mountedPaths().includes(path) !== present) {
    if (Date.now() > deadline) {
      throw new CodedError("ETIMEDOUT", `${path} is still ${present ? "not " : ""}mounted`);
    }
    await new Promise((done) => setTimeout(done, 10));
  }
}

/** Field 22 of /proc/PID/stat: with it, a process that got the number anew is another one. */
function startTime(pid: number): string | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    const [state, ...fields] = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return state === "Z" ? undefined : fields[18];
  } catch {
    return undefined;
  }
}

/** The daemon that serves the directory, if it lives. */
export function servingDaemon(path: string): number | undefined {
  try {
    const [pid, start] = readFileSync(join(path, ownerFile), "utf8").trim().split(" ");
    const found = Number(pid);
    return start !== undefined && startTime(found) === start ? found : undefined;
  } catch {
    return undefined;
  }
}

function refuse(code: string, sentence: string): never {
  throw new CodedError(code, sentence);
}

/** Detaches what is mounted at the path or below it, deepest first. */
function clearMounts(path: string): void {
  const below = mountedPaths().filter((each) => each === path || each.startsWith(`${path}/`));
  for (const each of below.reverse()) {
    try {
      native.unmount(each);
    } catch (error) {
      refuse(codeOf(error), `the stale mount ${each} of a killed daemon can't be cleared`);
    }
  }
}

function takeAway(path: string, made: string[]): void {
  for (const name of ["sys", "dev"]) {
    try {
      rmdirSync(join(path, name));
    } catch (error) {
      if (codeOf(error) !== "ENOENT") throw error;
    }
  }
  try {
    unlinkSync(join(path, ownerFile));
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
  }
  for (const each of made) {
    try {
      rmdirSync(each);
    } catch {
      // Somebody put something in: it stays.
    }
  }
}

function makeDirectories(path: string): string[] {
  const made: string[] = [];
  for (let each = path; !existsSync(each); each = dirname(each)) made.push(each);
  mkdirSync(path, { recursive: true });
  return made;
}

/**
 * Makes the directory ready. Throws, with one sentence, where it is a file, not empty, in use by a
 * living daemon, or may not be made. A dead daemon's mounts in it are cleared.
 */
export function prepareMountpoint(given: string): Mountpoint {
  const path = withoutLinks(given);
  if (path === "/") refuse("EINVAL", "the mountpoint may not be /");
  let stale = false;
  try {
    if (!lstatSync(path).isDirectory()) {
      refuse("ENOTDIR", `the mountpoint ${path} is not a directory`);
    }
  } catch (error) {
    if (error instanceof CodedError) throw error;
    if (codeOf(error) === "ENOTCONN") stale = true;
    else if (codeOf(error) !== "ENOENT") {
      refuse(codeOf(error), `the mountpoint ${path} can't be used: ${(error as Error).message}`);
    }
  }
  if (stale) clearMounts(path);
  const daemon = servingDaemon(path);
  if (daemon !== undefined) {
    refuse("EBUSY", `the mountpoint ${path} is in use by v4l2loopback-fuse, pid ${daemon}`);
  }
  if (existsSync(join(path, ownerFile))) {
    clearMounts(path);
    takeAway(path, []);
  }
  let made: string[] = [];
  try {
    made = makeDirectories(path);
    if (mountedPaths().includes(path) && readdirSync(path).length > 0) {
      refuse("EBUSY", `the mountpoint ${path} has something else mounted on it`);
    }
    const present = readdirSync(path);
    if (present.length > 0) {
      refuse("ENOTEMPTY", `the mountpoint ${path} is not empty: it has ${present[0]}`);
    }
    // Two that start at once: one of them makes the file.
    writeFileSync(join(path, ownerFile), `${process.pid} ${startTime(process.pid)}\n`, {
      flag: "wx",
    });
    mkdirSync(join(path, "sys"));
    mkdirSync(join(path, "dev"));
  } catch (error) {
    for (const each of made) {
      try {
        rmdirSync(each);
      } catch {
        break;
      }
    }
    if (error instanceof CodedError) throw error;
    refuse(codeOf(error), `the mountpoint ${path} can't be made: ${(error as Error).message}`);
  }
  return { path, sys: join(path, "sys"), dev: join(path, "dev"), made };
}

/** Undoes `prepareMountpoint`, once nothing is mounted any more. */
export function releaseMountpoint(mountpoint: Mountpoint): void {
  takeAway(mountpoint.path, mountpoint.made);
}
