// The programs of test/programs, run as real processes and followed by their JSON lines.
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const repositoryRoot = fileURLToPath(new URL("../../", import.meta.url));
const eventDeadlineMs = 60_000;

// biome-ignore lint/suspicious/noExplicitAny: a record holds whatever the program printed.
export type JsonRecord = Record<string, any>;

export interface ProducerSummary extends JsonRecord {
  event: "done";
  frames: number;
  bytes: number;
  errno: string | null;
  /** Where it failed, for instance `S_FMT`; only with an errno. */
  at?: string;
  again: number;
  shortWrites: number;
  seconds: number;
}

export interface ConsumerSummary extends JsonRecord {
  event: "done";
  frames: number;
  bytes: number;
  torn: number;
  gaps: number;
  reordered: number;
  producers: Record<string, { first: number; last: number; count: number; gaps: number }>;
  firstSequence: number;
  sequenceGaps: number;
  sequenceAdvances: boolean;
  /** Of streaming alone; never back, and how often the one before again. */
  timestampsAdvance: boolean;
  timestampsRepeated: number;
  firstTimestampUs: number;
  lastTimestampUs: number;
  again: number;
  seconds: number;
  errno: string | null;
  at?: string;
}

export interface Program<Summary extends JsonRecord> {
  readonly pid: number;
  /** The program's first `ready`. */
  readonly ready: Promise<JsonRecord>;
  /** Its summary; rejects when it ends without one. No deadline: the caller's test has one. */
  readonly done: Promise<Summary>;
  /** When the process is gone: its exit code, or null when a signal ended it. */
  readonly exited: Promise<number | null>;
  /** The first record of that name, also one that has come already; rejects after 60 s. */
  event(name: string): Promise<JsonRecord>;
  signal(signal: NodeJS.Signals): void;
  /** SIGKILL; resolves when the process is gone. */
  kill(): Promise<void>;
}

export interface Talker {
  readonly pid: number;
  /** Sends one command, and resolves with its answer. Answers come in order; no deadline. */
  send(command: string): Promise<JsonRecord>;
  kill(): Promise<void>;
}

interface Running {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly exited: Promise<number | null>;
  /** What it wrote to standard error so far. */
  complaint(): string;
}

const running = new Set<Running>();

function start(name: string, args: readonly string[], took: (record: JsonRecord) => void): Running {
  const path = join(repositoryRoot, "build/test-programs", name);
  const child = spawn(path, args, { stdio: ["pipe", "pipe", "pipe"] });
  const { pid } = child;
  let complaint = "";
  if (pid === undefined) {
    // The spawn error arrives as an event, which must not go unheard.
    child.on("error", () => {});
    throw new Error(`${path}: cannot be started; are the test programs built?`);
  }
  child.stderr.on("data", (bytes: Buffer) => {
    complaint += bytes.toString();
  });
  // A program that has ended meets nobody's command: `exited` tells.
  child.stdin.on("error", () => {});
  createInterface({ input: child.stdout }).on("line", (line) => took(JSON.parse(line)));
  const exited = new Promise<number | null>((resolve) => {
    // "close" comes when the last line has been read, "exit" may come before.
    child.on("close", (code) => {
      running.delete(process_);
      resolve(code);
    });
  });
  const process_: Running = { child, pid, exited, complaint: () => complaint };
  running.add(process_);
  return process_;
}

async function end(process_: Running): Promise<void> {
  if (running.has(process_)) process_.child.kill("SIGKILL");
  await process_.exited;
}

function follow<Summary extends JsonRecord>(
  name: string,
  args: readonly (string | number)[],
): Program<Summary> {
  const seen = new Map<string, JsonRecord>();
  const waiting = new Map<string, ((record: JsonRecord) => void)[]>();
  const process_ = start(name, args.map(String), (record) => {
    const event = String(record.event);
    if (seen.has(event)) return;
    seen.set(event, record);
    for (const resolve of waiting.get(event) ?? []) resolve(record);
    waiting.delete(event);
  });
  const shown = `${name} ${args.join(" ")}`;

  function record(event: string, deadlineMs: number | undefined): Promise<JsonRecord> {
    const found = seen.get(event);
    if (found !== undefined) return Promise.resolve(found);
    const promise = new Promise<JsonRecord>((resolve, reject) => {
      const timer =
        deadlineMs === undefined
          ? undefined
          : setTimeout(() => {
              reject(new Error(`${shown}: no "${event}" within ${deadlineMs} ms`));
            }, deadlineMs);
      const settle = (value: JsonRecord) => {
        clearTimeout(timer);
        resolve(value);
      };
      waiting.set(event, [...(waiting.get(event) ?? []), settle]);
      void process_.exited.then((code) => {
        clearTimeout(timer);
        const last = JSON.stringify(seen.get("done") ?? null);
        const complaint = process_.complaint();
        reject(
          new Error(`${shown}: ended (${code}) without "${event}"; done: ${last}; ${complaint}`),
        );
      });
    });
    // A test need not wait for every event: what nobody awaits must not end the test run.
    promise.catch(() => {});
    return promise;
  }

  return {
    pid: process_.pid,
    ready: record("ready", eventDeadlineMs),
    done: record("done", undefined) as Promise<Summary>,
    exited: process_.exited,
    event: (event) => record(event, eventDeadlineMs),
    signal: (signal) => {
      process_.child.kill(signal);
    },
    kill: () => end(process_),
  };
}

/** Starts frame_producer; its arguments stand at the top of frame_producer.cc. */
export function producer(args: readonly (string | number)[]): Program<ProducerSummary> {
  return follow("frame_producer", args);
}

/** Starts frame_consumer; its arguments stand at the top of frame_consumer.cc. */
export function consumer(args: readonly (string | number)[]): Program<ConsumerSummary> {
  return follow("frame_consumer", args);
}

export interface StormSummary extends JsonRecord {
  event: "done";
  seed: number;
  killed: number;
  /** Ended with EBUSY, where it may be. */
  busy: number;
  written: number;
  taken: number;
  torn: number;
  /** How many were killed as what, and doing what. */
  kinds: Record<string, number>;
  stages: Record<string, number>;
  /** Clients that ended by themselves, which none should. */
  failed: Record<string, number>;
}

/** Starts kill_storm; its arguments stand at the top of kill_storm.cc. */
export function storm(args: readonly (string | number)[]): Program<StormSummary> {
  return follow("kill_storm", args);
}

export interface AccountingSummary extends JsonRecord {
  event: "done";
  turns: number;
  violations: number;
  /** The rules that were broken. */
  broken: string[];
  /** Turns in which dynamic buffering was on, and of these those without a resize. */
  active: number;
  exact: number;
  resets: number;
  switches: number;
  mostConsumers: number;
  mostDropped: number;
  mostLeft: number;
  mostStalled: number;
}

/** Starts accounting_checker; its arguments stand at the top of accounting_checker.cc. */
export function accountingChecker(args: readonly (string | number)[]): Program<AccountingSummary> {
  return follow("accounting_checker", args);
}

/** Starts device_talk; its commands stand at the top of device_talk.cc. */
export function talker(): Talker {
  const unanswered: { resolve: (record: JsonRecord) => void; reject: (error: Error) => void }[] =
    [];
  const process_ = start("device_talk", [], (record) => unanswered.shift()?.resolve(record));
  let ended = false;
  const endedError = () => new Error(`device_talk ended; ${process_.complaint()}`);
  void process_.exited.then(() => {
    ended = true;
    for (const { reject } of unanswered.splice(0)) reject(endedError());
  });
  return {
    pid: process_.pid,
    send(command) {
      if (ended) return Promise.reject(endedError());
      const answer = new Promise<JsonRecord>((resolve, reject) => {
        unanswered.push({ resolve, reject });
      });
      answer.catch(() => {});
      process_.child.stdin?.write(`${command}\n`);
      return answer;
    },
    kill: () => end(process_),
  };
}

/** Kills what is left of all programs started here; for `afterEach`. */
export async function stopAll(): Promise<void> {
  await Promise.all([...running].map(end));
}
