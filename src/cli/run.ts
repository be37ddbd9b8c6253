/**
 * `run`: a command in a mount namespace of its own, in which the devices are at their real places.
 * What it takes is checked here; native/run does it, and becomes the command.
 */
import { fileURLToPath } from "node:url";
import { UsageError } from "../errors.js";
import type { LogLevel } from "../log.js";
import { native } from "../native.js";
import { requireDaemon } from "./mounted-devices.js";
import { parseModuleWords } from "./module-words.js";
import type { Ownership } from "./ownership.js";
import { runProgram } from "./system-places.js";

export interface RunFlags {
  words: string[];
  /** What `mount` is to be given for a daemon of the command's own; undefined: join the mounted. */
  daemon: string[] | undefined;
  ownership: Ownership;
  logLevel: LogLevel;
  mountpoint: string;
  mountpointTyped: boolean;
  /** Empty: a shell. */
  command: string[];
}

const pathOf = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));

/** The devices' source for native/run: see native/run/run.cc. */
function source(flags: RunFlags): string[] {
  if (flags.daemon === undefined) {
    requireDaemon(flags.mountpoint);
    return ["join", flags.mountpoint];
  }
  if (flags.mountpointTyped) {
    throw new UsageError(
      "--mountpoint names a daemon to join, and parameters make one: give the one or the other",
    );
  }
  const commandWord = flags.words.find((word) => !word.includes("="));
  if (commandWord !== undefined) {
    throw new UsageError(`${commandWord} is not parameter=value; a command follows --`);
  }
  parseModuleWords(flags.words);
  const line = [
    process.execPath,
    pathOf("main.js"),
    "mount",
    ...flags.daemon,
    "--log-level",
    flags.logLevel,
  ];
  return ["own", String(line.length), ...line];
}

/** Becomes the command. */
export function run(flags: RunFlags): never {
  const command = flags.command.length > 0 ? flags.command : [process.env.SHELL ?? "/bin/sh"];
  return native.exec(runProgram, [...source(flags), "--", ...command]);
}
