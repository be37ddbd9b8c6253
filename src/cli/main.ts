#!/usr/bin/env node
/** The command line: what is typed, and the exit code. */
import { readFileSync } from "node:fs";
import { isAbsolute, resolve } from "node:path";
import { isatty } from "node:tty";
import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { messageOf, UsageError } from "../errors.js";
import { type LogLevel, logFormats, logLevels } from "../log.js";
import { add, remove } from "./add-delete.js";
import { defaultMountpoint } from "./default-mountpoint.js";
import { exitCodes } from "./exit-codes.js";
import { list } from "./list.js";
import { parameterHelp, parseModuleWords } from "./module-words.js";
import { mount } from "./mount.js";
import { ownership } from "./ownership.js";
import { run } from "./run.js";
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

/** The flags of a daemon, which `mount` is and `run` may start. */
function daemonOptions(command: Command, leastLogged: LogLevel): Command {
  return command
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
        .default(leastLogged),
    )
    .addOption(
      new Option("--log-format <format>", "how it is logged")
        .choices(logFormats)
        // Asked without making a stream of it: `run` hands the terminal on as it is.
        .default(isatty(2) ? "pretty" : "json", "pretty on a terminal, else json"),
    )
    .addHelpText("after", `\nParameters:\n${parameters}`);
}

daemonOptions(program.command("mount"), "info")
  .description("mount the devices and their attributes, and serve them until Ctrl-C")
  .argument("[parameter=value...]", "as for modprobe v4l2loopback")
  .option("--system", "put the devices at /dev and /sys for everybody (root)")
  .addOption(mountpointOption())
  .action(async (words: string[], flags) => {
    process.exit(await mount(parseModuleWords(words), { ...flags, ownership: ownership(flags) }));
  });

// What follows `--` is the command's, and none of ours.
const typed = process.argv.slice(2);
const end = typed[0] === "run" ? typed.indexOf("--") : -1;
const ours = end < 0 ? typed : typed.slice(0, end);
const commandLine = end < 0 ? [] : typed.slice(end + 1);

daemonOptions(program.command("run"), "warn")
  .usage("[parameter=value...] [options] [-- command...]")
  .description(
    "run a command, or a shell, that finds the devices at /dev and /sys: those of a daemon of its " +
      "own, if there are parameters, else of the one that is mounted",
  )
  .argument("[parameter=value...]", "as for modprobe v4l2loopback")
  .addOption(mountpointOption())
  .action((words: string[], flags, command: Command) => {
    const isTyped = (name: string) => command.getOptionValueSource(name) === "cli";
    const own = Object.keys(flags).filter((name) => name !== "mountpoint" && isTyped(name));
    run({
      words,
      // Checked like mount's, though it is the daemon that will use it.
      daemon: words.length > 0 || own.length > 0 ? ours.slice(1) : undefined,
      ownership: ownership(flags),
      logLevel: flags.logLevel,
      mountpoint: flags.mountpoint,
      mountpointTyped: isTyped("mountpoint"),
      command: commandLine,
    });
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
  .command("add")
  .description("add a device to the mounted daemon; says its path")
  .argument("[parameter=value...]", "video_nr, card_label, exclusive_caps, max_...")
  .addOption(mountpointOption())
  .action((words, { mountpoint }) => void process.stdout.write(`${add(mountpoint, words)}\n`));

program
  .command("delete")
  .description("remove devices that nobody has open")
  .argument("<device...>", "10 or video10")
  .addOption(mountpointOption())
  .action((devices, { mountpoint }) => remove(mountpoint, devices));

program
  .command("umount")
  .description("end the daemon that is mounted, as Ctrl-C does")
  .addOption(mountpointOption())
  .action(({ mountpoint }) => umount(mountpoint));

try {
  await program.parseAsync(ours, { from: "user" });
} catch (error) {
  if (error instanceof CommanderError) {
    // commander has said what is wrong; its exit code for it is 1.
    process.exit(error.exitCode === 0 ? exitCodes.ok : exitCodes.usage);
  }
  process.stderr.write(`v4l2loopback-fuse: ${messageOf(error)}\n`);
  process.exit(error instanceof UsageError ? exitCodes.usage : exitCodes.failure);
}
