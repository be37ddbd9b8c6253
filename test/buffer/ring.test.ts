/** The ring alone, with a clock that the test turns. */
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type NativeRing, native, type RingParameters } from "../../src/native.js";

const frameBytes = 8192;
let ring: NativeRing;

function make(parameters: Partial<RingParameters> = {}): void {
  ring?.close();
  ring = new native.Ring({
    sizeimage: frameBytes,
    manualClock: true,
    parameters: { dynamic: true, max: 16 * frameBytes, ...parameters },
  });
}

beforeEach(() => make());
afterEach(() => ring.close());

let stamp = 0;
function publish(producer: number, times = 1): boolean[] {
  return Array.from({ length: times }, () => {
    stamp += 1;
    const frame = Buffer.alloc(frameBytes, stamp % 251);
    frame.writeUInt32LE(stamp);
    return ring.publish(producer, frame);
  });
}

function takeAll(consumer: number): number[] {
  const numbers: number[] = [];
  for (let taken = ring.take(consumer); taken !== null; taken = ring.take(consumer)) {
    const number = taken.payload.readUInt32LE();
    expect(taken.payload.subarray(4).every((byte) => byte === number % 251)).toBe(true);
    numbers.push(number);
  }
  return numbers;
}

function row(at: number) {
  const found = ring.consumers()[at];
  if (found === undefined) throw new Error(`no row ${at}`);
  expect(found.published).toBe(found.delivered + found.dropped + found.owed + found.left);
  return found;
}

describe("dynamic", () => {
  test("grows by doublings, and halves after each delay that the low watermark holds", () => {
    const producer = ring.joinProducer();
    const consumer = ring.joinConsumer();
    expect(ring.counters().size).toBe(2 * frameBytes);
    expect(publish(producer, 16)).not.toContain(false);
    expect(ring.counters()).toMatchObject({ size: 16 * frameBytes, expandCount: 3 });
    expect(takeAll(consumer)).toHaveLength(16);
    for (const frames of [8, 4, 2]) {
      ring.advanceClock(4999);
      ring.tick();
      expect(ring.counters().size).toBe(2 * frames * frameBytes);
      ring.advanceClock(1);
      ring.tick();
      expect(ring.counters().size).toBe(frames * frameBytes);
    }
    ring.advanceClock(60_000);
    ring.tick();
    expect(ring.counters()).toMatchObject({ size: 2 * frameBytes, shrinkCount: 3 });
  });

  test("block: a full ring refuses, and loses nothing before the stall timeout", () => {
    const producer = ring.joinProducer();
    const consumer = ring.joinConsumer();
    expect(publish(producer, 17).at(-1)).toBe(false);
    ring.advanceClock(999);
    expect(publish(producer)).toEqual([false]);
    expect(row(0)).toMatchObject({ owed: 16, dropped: 0 });
    expect(takeAll(consumer)).toHaveLength(16);
  });

  test.each([
    ["newest", 2],
    ["oldest", 16],
  ] as const)("lap=%s: a stalled consumer goes on there", (lap, left) => {
    make({ lap });
    const producer = ring.joinProducer();
    const consumer = ring.joinConsumer();
    publish(producer, 17);
    ring.advanceClock(1000);
    expect(publish(producer)).toEqual([true]);
    expect(row(0)).toMatchObject({ owed: left, dropped: 17 - left });
    // Until it takes a frame it is lapped again at once.
    expect(publish(producer, 40)).not.toContain(false);
    const numbers = takeAll(consumer);
    expect(numbers.at(-1)).toBe(stamp);
    expect(row(0).dropped + numbers.length).toBe(57);
  });

  test("stall timeout 0: nothing is ever lost", () => {
    make({ stallTimeoutMs: 0 });
    const producer = ring.joinProducer();
    const consumer = ring.joinConsumer();
    publish(producer, 17);
    ring.advanceClock(3_600_000);
    expect(publish(producer)).toEqual([false]);
    expect(takeAll(consumer)).toHaveLength(16);
  });

  test("drop: never waits", () => {
    make({ overflow: "drop" });
    const producer = ring.joinProducer();
    ring.joinConsumer();
    expect(publish(producer, 100)).not.toContain(false);
    expect(row(0).dropped).toBeGreaterThan(80);
  });

  test("every consumer sees every frame; a newcomer starts with the newest", () => {
    const producer = ring.joinProducer();
    const first = ring.joinConsumer("first");
    publish(producer, 3);
    const newest = stamp;
    const second = ring.joinConsumer("second");
    publish(producer, 2);
    expect(takeAll(first)).toEqual([newest - 2, newest - 1, newest, newest + 1, newest + 2]);
    expect(takeAll(second)).toEqual([newest, newest + 1, newest + 2]);
    expect(ring.consumers().map(({ command }) => command)).toEqual(["first", "second", "total"]);
  });

  test("a newcomer gets no frame of a producer that has gone", () => {
    const producer = ring.joinProducer();
    publish(producer);
    ring.leaveProducer(producer);
    expect(takeAll(ring.joinConsumer())).toEqual([]);
    expect(ring.counters().heldFrames).toBe(0);
  });

  test("without consumers it keeps the newest frame and does not grow", () => {
    publish(ring.joinProducer(), 50);
    expect(ring.counters()).toMatchObject({ size: 2 * frameBytes, used: 0, heldFrames: 1 });
  });

  test("what is owed at leaving is left, not lost; a reset keeps the law", () => {
    const producer = ring.joinProducer();
    const consumer = ring.joinConsumer();
    publish(producer, 5);
    ring.take(consumer);
    ring.resetCounters();
    expect(row(0)).toMatchObject({ published: 4, delivered: 0, owed: 4 });
    ring.leaveConsumer(consumer);
    expect(row(0)).toMatchObject({ command: "total", published: 4, left: 4, dropped: 0 });
  });

  test("a max above 42 MB: percentages do not overflow", () => {
    make({ max: 2 ** 33, min: 2 ** 32 });
    const producer = ring.joinProducer();
    ring.joinConsumer();
    expect(publish(producer, 20)).not.toContain(false);
    expect(ring.counters()).toMatchObject({ size: 2 ** 32, used: 20 * frameBytes });
  });

  test.each([
    [{ min: 2 ** 20, max: 2 ** 19 }],
    [{ highWatermark: 0 }],
    [{ highWatermark: 101 }],
    [{ lowWatermark: 38 }],
    [{ lowWatermark: 0 }],
    [{ max: frameBytes }],
  ])("%j is refused, and changes nothing", (changes) => {
    const before = ring.parameters();
    expect(() => ring.setParameters(changes)).toThrowError(
      expect.objectContaining({ code: "EINVAL" }),
    );
    expect(ring.parameters()).toEqual(before);
  });
});

describe("static", () => {
  beforeEach(() => make({ dynamic: false, maxBuffers: 3 }));

  test("the oldest frame goes, the loss is counted, the producer never waits", () => {
    const producer = ring.joinProducer();
    const consumer = ring.joinConsumer();
    expect(publish(producer, 10)).not.toContain(false);
    expect(row(0)).toMatchObject({ owed: 3, dropped: 7 });
    expect(takeAll(consumer)).toEqual([stamp - 2, stamp - 1, stamp]);
  });

  test("a second producer is refused with EBUSY", () => {
    ring.joinProducer();
    expect(() => ring.joinProducer()).toThrowError(expect.objectContaining({ code: "EBUSY" }));
  });

  test("a switch leaves to the consumers what they are owed", () => {
    make({ maxBuffers: 2 });
    const producer = ring.joinProducer();
    const consumer = ring.joinConsumer();
    publish(producer, 6);
    const newest = stamp;
    ring.setParameters({ dynamic: false });
    publish(producer, 4);
    expect(takeAll(consumer)).toEqual([
      ...Array.from({ length: 6 }, (_, at) => newest - 5 + at),
      stamp - 1,
      stamp,
    ]);
    expect(row(0)).toMatchObject({ dropped: 2 });
  });
});
