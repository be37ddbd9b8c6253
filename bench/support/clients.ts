// The programs of bench/programs, each a process of its own, followed by their JSON lines.
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";

const folder = join(import.meta.dirname, "../../build/bench-programs");

export function programPath(program: string): string {
  return join(folder, program);
}

const patienceMs = 120_000;

// biome-ignore lint/suspicious/noExplicitAny: a line holds whatever the program printed.
export type Line = Record<string, any>;

export interface Client {
  readonly pid: number;
  /** The first line with that event; rejects when the program ends without it. */
  event(name: string): Promise<Line>;
  /** Its last word; rejects where it failed. */
  done(): Promise<Line>;
  /** Lets one that was started with --wait begin. */
  go(): void;
  stop(): void;
}

const running = new Set<ChildProcess>();

/** Ends what is left; for when a benchmark fails or is interrupted. */
export function killClients(): void {
  for (const child of running) child.kill("SIGKILL");
}

export function client(
  program: string,
  args: readonly (string | number)[],
  options: { patienceMs?: number } = {},
): Client {
  const words = args.map(String);
  const shown = `${program} ${words.join(" ")}`;
  const child = spawn(programPath(program), words, { stdio: ["pipe", "pipe", "pipe"] });
  running.add(child);
  const lines = new Map<string, Line>();
  const wanted = new Map<string, { resolve(line: Line): void; reject(error: Error): void }[]>();
  let complaint = "";
  let ended: Error | undefined;
  let overdue = false;
  const timer = setTimeout(() => {
    overdue = true;
    child.kill("SIGKILL");
  }, options.patienceMs ?? patienceMs);
  child.stdin.on("error", () => {});
  child.stderr.on("data", (bytes: Buffer) => {
    complaint += bytes.toString();
  });
  createInterface({ input: child.stdout }).on("line", (text) => {
    const line = JSON.parse(text) as Line;
    const name = String(line.event);
    lines.set(name, line);
    for (const { resolve } of wanted.get(name) ?? []) resolve(line);
    wanted.delete(name);
  });
  const end = (how: string) => {
    clearTimeout(timer);
    running.delete(child);
    ended = new Error(`${shown}: ${overdue ? "took too long" : how} ${complaint}`);
    for (const each of wanted.values()) for (const { reject } of each) reject(ended);
    wanted.clear();
  };
  child.on("error", (error) => end(error.message));
  child.on("close", (code, signal) => end(`ended (${signal ?? code}) too early`));

  const event = (name: string) =>
    new Promise<Line>((resolve, reject) => {
      const found = lines.get(name);
      if (found !== undefined) resolve(found);
      else if (ended !== undefined) reject(ended);
      else wanted.set(name, [...(wanted.get(name) ?? []), { resolve, reject }]);
    });
  return {
    pid: child.pid ?? 0,
    event,
    async done() {
      const line = await event("done");
      if (line.errno !== null) {
        throw new Error(`${shown}: ${line.errno}${line.at === undefined ? "" : ` at ${line.at}`}`);
      }
      return line;
    },
    go: () => void child.stdin.end("go\n"),
    stop: () => void child.kill("SIGTERM"),
  };
}
