#!/usr/bin/env node
/** The command line: what is typed, and the exit code. */
import { readFileSync } from "node:fs";
import { isAbsolute, resolve } from "node:path";
import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { messageOf, UsageError } from "../errors.js";
import { logFormats, logLevels } from "../log.js";
import { defaultMountpoint } from "./default-mountpoint.js";
import { exitCodes } from "./exit-codes.js";
import { list } from "./list.js";
import { parameterHelp, parseModuleWords } from "./module-words.js";
import { mount } from "./mount.js";
import { ownership } from "./ownership.js";
import { stats } from "./stats.js";
import { umount } from "./umount.js";

/** npm runs scripts in the package's folder; what was typed is meant from where it was typed. */
function directory(given: string): string {
  if (given === "") throw new InvalidArgumentError("it is empty.");
  return isAbsolute(given) ? given : resolve(process.env.INIT_CWD ?? ".", given);
}

function mountpointOption(): Option {
  return new Option("--mountpoint <dir>", "where sys/ and dev/ are")
    .default(defaultMountpoint())
    .argParser(directory);
}

const { version } = JSON.parse(
  readFileSync(new URL("../../package.json", import.meta.url), "utf8"),
) as { version: string };

const parameters = Object.entries(parameterHelp)
  .map(([name, help]) => `  ${`${name}=`.padEnd(34)}${help}`)
  .join("\n");

const program = new Command("v4l2loopback-fuse")
  .description("A virtual video device with dynamic buffering and no kernel module.")
  .version(version)
  .exitOverride()
  .configureOutput({ outputError: (text, write) => write(`v4l2loopback-fuse: ${text}`) });

program
  .command("mount")
  .description("mount the devices and their attributes, and serve them until Ctrl-C")
  .argument("[parameter=value...]", "as for modprobe v4l2loopback")
  .addOption(mountpointOption())
  .option("--allow-other", "let other users in (as root on by itself)", process.getuid?.() === 0)
  .option("--user <user>", "owner of the device files")
  .option("--group <group>", "group of the device files (video)")
  .option("--mode <octal>", "permissions of the device files (0660)")
  .addOption(
    new Option("--io-mode <mode>", "how programs map buffers")
      .choices(["auto", "passthrough", "page-cache", "read-write"])
      .default("auto"),
  )
  .addOption(
    new Option("--log-level <level>", "the least that is logged")
      .choices(logLevels)
      .default("info"),
  )
  .addOption(
    new Option("--log-format <format>", "how it is logged")
      .choices(logFormats)
      .default(process.stderr.isTTY ? "pretty" : "json", "pretty on a terminal, else json"),
  )
  .addHelpText("after", `\nParameters:\n${parameters}`)
  .action(async (words: string[], flags) => {
    process.exit(await mount(parseModuleWords(words), { ...flags, ownership: ownership(flags) }));
  });

program
  .command("list")
  .description("list the devices that are mounted")
  .addOption(mountpointOption())
  .action(({ mountpoint }) => void process.stdout.write(list(mountpoint)));

program
  .command("stats")
  .description("show dynamic_buffer_stats of a device, or of all")
  .argument("[device]", "10 or video10")
  .addOption(mountpointOption())
  .action((device, { mountpoint }) => void process.stdout.write(stats(mountpoint, device)));

program
  .command("umount")
  .description("end the daemon that is mounted, as Ctrl-C does")
  .addOption(mountpointOption())
  .action(({ mountpoint }) => umount(mountpoint));

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    // commander has said what is wrong; its exit code for it is 1.
    process.exit(error.exitCode === 0 ? exitCodes.ok : exitCodes.usage);
  }
  process.stderr.write(`v4l2loopback-fuse: ${messageOf(error)}\n`);
  process.exit(error instanceof UsageError ? exitCodes.usage : exitCodes.failure);
}
