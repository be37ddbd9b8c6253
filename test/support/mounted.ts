/** A real daemon in a mountpoint of its own, for one test file or one test. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const deadlineMs = 60_000;
/** LOOPBACK_CLI names that of another tree, for benchmarks that compare two. */
const cli = () => process.env.LOOPBACK_CLI ?? join(import.meta.dirname, "../../dist/cli/main.js");

/** Resolves when `holds` does; rejects, saying what was waited for, after the deadline. */
export async function until(
  what: string,
  holds: () => boolean | Promise<boolean>,
  patienceMs = deadlineMs,
): Promise<void> {
  const deadline = Date.now() + patienceMs;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`waited in vain until ${what}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

export interface Finished {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** Runs the command line to its end. */
export function runCli(args: string[], env: NodeJS.ProcessEnv = process.env): Promise<Finished> {
  return runProgram(process.execPath, [cli(), ...args], { env });
}

/** Runs a program to its end; killed after the deadline. Never rejects. */
export function runProgram(
  program: string,
  args: string[],
  options: { env?: NodeJS.ProcessEnv; input?: string; uid?: number; gid?: number } = {},
): Promise<Finished> {
  const { input, ...rest } = options;
  return new Promise((resolve) => {
    const child = spawn(program, args, {
      ...rest,
      stdio: [input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    });
    let stdout = "";
    let stderr = "";
    child.stdout?.on("data", (data) => {
      stdout += data;
    });
    child.stderr?.on("data", (data) => {
      stderr += data;
    });
    if (input !== undefined) child.stdin?.end(input);
    const timer = setTimeout(() => child.kill("SIGKILL"), deadlineMs * 2);
    child.on("error", (error) => {
      stderr += error.message;
    });
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal, stdout, stderr });
    });
  });
}

/** A shell line, run by bash; for what users type. */
export function shell(line: string, options: { uid?: number; gid?: number } = {}) {
  return runProgram("bash", ["-c", line], options);
}

export interface Mounted {
  pid: number;
  path: string;
  output(): string;
  errors(): string;
  /** Path of a device file. */
  dev(number: number): string;
  /** Path of an attribute. */
  attribute(number: number, name: string): string;
  read(number: number, name: string): Promise<string>;
  /** Rejects with the shell's own words where the kernel refuses the value. */
  write(number: number, name: string, value: string): Promise<void>;
  counters(number: number): Promise<Record<string, number>>;
  consumers(number: number): Promise<Record<string, string>[]>;
  /** Resolves when so many consumers have joined; a program says `ready` before it has. */
  joined(number: number, consumers: number): Promise<void>;
  signal(signal: NodeJS.Signals): void;
  /** The daemon's exit code. */
  exited: Promise<number | null>;
  /** Ends the daemon and checks that nothing is left; idempotent. */
  stop(): Promise<void>;
}

const running = new Set<Mounted>();

/** For afterEach and afterAll: ends what tests left behind. */
export async function stopAllMounts(): Promise<void> {
  for (const each of [...running]) await each.stop();
}

export function isMounted(path: string): boolean {
  return readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .some((line) => line.split(" ")[4]?.startsWith(path));
}

/** `TEST_IO_MODE=page-cache npm test -- test/device` runs all of it in another mode. */
const ioMode =
  process.env.TEST_IO_MODE === undefined ? [] : ["--io-mode", process.env.TEST_IO_MODE];

/**
 * Mounts with the words and flags given; resolves when it can be used. With `cgroup`, a directory,
 * the daemon starts in it; with `under`, a program, that program starts the daemon.
 */
export async function mounted(
  args: string[],
  { cgroup, under }: { cgroup?: string; under?: string } = {},
): Promise<Mounted> {
  const parent = mkdtempSync(join(tmpdir(), "v4l2loopback-test-"));
  const path = join(parent, "v");
  const [program = "", ...words] = [
    ...(cgroup === undefined
      ? []
      : ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', cgroup]),
    ...(under === undefined ? [] : [under]),
    ...[process.execPath, cli(), "mount", ...ioMode, ...args, "--mountpoint", path],
  ];
  const child: ChildProcess = spawn(program, words, { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  let errors = "";
  child.stdout?.on("data", (data) => {
    output += data;
  });
  child.stderr?.on("data", (data) => {
    errors += data;
  });
  const exited = new Promise<number | null>((resolve) => child.on("exit", resolve));
  let hasExited = false;
  void exited.then(() => {
    hasExited = true;
  });
  const attribute = (number: number, name: string) =>
    join(path, `sys/class/video4linux/video${number}`, name);
  const read = (number: number, name: string) =>
    new Promise<string>((resolve, reject) => {
      execFile("cat", [attribute(number, name)], (error, stdout, stderr) =>
        error ? reject(new Error(`${stderr}; the daemon said: ${errors}`)) : resolve(stdout),
      );
    });
  const self: Mounted = {
    pid: child.pid ?? 0,
    path,
    output: () => output,
    errors: () => errors,
    dev: (number) => join(path, `dev/video${number}`),
    attribute,
    read,
    async write(number, name, value) {
      const done = await runProgram("bash", ["-c", 'cat > "$0"', attribute(number, name)], {
        input: value,
      });
      if (done.code !== 0) throw new Error(done.stderr);
    },
    async counters(number) {
      const text = await read(number, "dynamic_buffer_counters");
      return Object.fromEntries(
        text
          .trim()
          .split("\n")
          .map((line) => {
            const [name = "", value] = line.split(" ");
            return [name, Number(value)];
          }),
      );
    },
    async consumers(number) {
      const [header = "", ...rows] = (await read(number, "dynamic_buffer_consumers"))
        .trimEnd()
        .split("\n");
      const names = header.split("\t");
      return rows.map((row) =>
        Object.fromEntries(row.split("\t").map((value, at) => [names[at] ?? "", value])),
      );
    },
    joined: (number, consumers) =>
      until(
        `${consumers} consumers have joined`,
        async () => (await self.counters(number)).consumers === consumers,
      ),
    signal: (signal) => void child.kill(signal),
    exited,
    async stop() {
      running.delete(self);
      if (!hasExited) child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), deadlineMs);
      await exited;
      clearTimeout(timer);
      for (const name of ["sys", "dev"]) {
        const left = join(path, name);
        if (isMounted(left)) await runProgram("umount", ["-l", left]);
      }
      rmSync(parent, { recursive: true, force: true });
    },
  };
  running.add(self);
  await until(
    `the daemon has mounted; it said ${errors}`,
    () => hasExited || output.includes("Ctrl-C unmounts."),
  );
  if (hasExited) {
    await self.stop();
    throw new Error(`the daemon ended at once: ${errors}`);
  }
  if (!existsSync(self.path)) throw new Error(`${path} is not there`);
  return self;
}
