// A device under measurement: the command itself in a process of its own, with its own mountpoint.
import { type Mounted, mounted, until } from "../../test/support/mounted.js";
import { type Client, client, type Line } from "./clients.js";
import { type Trial, trialOf } from "./statistics.js";

export const number = 10;

/** A picture's size, and how much of it is sent in a trial. */
export interface Picture {
  size: string;
  bytes: number;
  /** Both sides at work at once. */
  flow: { warmup: number; frames: number };
  /** Sent before anything is taken: as many as the ring holds. */
  held: number;
  words: string[];
}

export const vga: Picture = {
  size: "640x480",
  bytes: 614400,
  flow: { warmup: 600, frames: 2000 },
  held: 400,
  words: [],
};

/** 4K. By default the ring would hold 16 of these. */
export const uhd: Picture = {
  size: "3840x2160",
  bytes: 16588800,
  flow: { warmup: 40, frames: 80 },
  held: 30,
  words: ["dynamic_buffer_max=512M"],
};

/** Dynamic buffering, and nobody is lapped because the machine is busy elsewhere. */
const usual = [`video_nr=${number}`, "dynamic_buffering=1", "dynamic_buffer_stall_timeout_ms=0"];

export async function withDaemon<Result>(
  words: readonly string[],
  use: (daemon: Mounted) => Promise<Result>,
): Promise<Result> {
  const daemon = await mounted([...usual, ...words]);
  try {
    return await use(daemon);
  } finally {
    await daemon.stop();
  }
}

type Words = readonly (string | number)[];

/** A producer that has set its format and waits to be told to go. */
export async function source(daemon: Mounted, picture: Picture, words: Words): Promise<Client> {
  const started = client("frame_source", [
    daemon.dev(number),
    ...["--size", picture.size, "--wait"],
    ...words,
  ]);
  await started.event("ready");
  return started;
}

/** A consumer that has joined. */
export async function sink(daemon: Mounted, words: Words): Promise<Client> {
  const started = client("frame_sink", [daemon.dev(number), ...words]);
  await started.event("ready");
  return started;
}

/** Resolves when no producer is at work: a consumer that joins then is shown no old frame. */
export function quiet(daemon: Mounted): Promise<void> {
  return until("the producers have gone", async () => {
    return (await daemon.counters(number)).producers === 0;
  });
}

/** The consumer's last word, once it is certain that every frame came. */
export async function complete(consumer: Client): Promise<Line> {
  const line = await consumer.done();
  if (line.gaps !== 0) throw new Error(`${line.gaps} times frames were missing`);
  return line;
}

/** A cost that is known for all frames of a trial together. */
export function shared(line: Line): Trial {
  const each = line.elapsedNs / line.callNs.length;
  return { median: each, p99: each };
}

export function calls(line: Line): Trial {
  return trialOf(line.callNs);
}
