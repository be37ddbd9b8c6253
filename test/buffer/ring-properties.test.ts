/** Whatever happens in whatever order: what the ring promises to each consumer holds. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { native } from "../../src/native.js";

type Step =
  | { kind: "publish"; producer: number; pages: number }
  | { kind: "take" | "leave"; consumer: number }
  | { kind: "join" | "joinProducer" | "reset" }
  | { kind: "leaveProducer"; producer: number }
  | { kind: "clock"; ms: number }
  | { kind: "mode"; dynamic: boolean }
  | { kind: "overflow"; overflow: "block" | "drop" }
  | { kind: "lap"; lap: "newest" | "oldest" };

const index = fc.nat({ max: 3 });
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant("publish" as const),
      producer: index,
      pages: fc.integer({ min: 1, max: 3 }),
    }),
  },
  { weight: 8, arbitrary: fc.record({ kind: fc.constant("take" as const), consumer: index }) },
  fc.record({ kind: fc.constant("leave" as const), consumer: index }),
  fc.record({ kind: fc.constantFrom("join" as const, "joinProducer" as const, "reset" as const) }),
  fc.record({ kind: fc.constant("leaveProducer" as const), producer: index }),
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("clock" as const),
      ms: fc.constantFrom(1, 999, 1000, 5000),
    }),
  },
  fc.record({ kind: fc.constant("mode" as const), dynamic: fc.boolean() }),
  fc.record({
    kind: fc.constant("overflow" as const),
    overflow: fc.constantFrom("block" as const, "drop" as const),
  }),
  fc.record({
    kind: fc.constant("lap" as const),
    lap: fc.constantFrom("newest" as const, "oldest" as const),
  }),
);

test("order, completeness and the accounting law hold after every step", () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 120 }), (steps) => {
      const page = 4096;
      const ring = new native.Ring({
        sizeimage: 2 * page,
        manualClock: true,
        parameters: { dynamic: true, max: 16 * page },
      });
      const producers: number[] = [];
      /** What each consumer took last. */
      const consumers: { id: number; last: number }[] = [];
      let published = 0;
      try {
        for (const each of steps) {
          switch (each.kind) {
            case "publish": {
              const producer = producers[each.producer];
              if (producer === undefined) break;
              const frame = Buffer.alloc(each.pages * page, published % 256);
              frame.writeUInt32LE(published);
              if (ring.publish(producer, frame)) published += 1;
              break;
            }
            case "take": {
              const consumer = consumers[each.consumer];
              if (consumer === undefined) break;
              const taken = ring.take(consumer.id);
              if (taken === null) break;
              const number = taken.payload.readUInt32LE();
              expect(number).toBeGreaterThan(consumer.last);
              expect(taken.payload.subarray(4).every((byte) => byte === number % 256)).toBe(true);
              consumer.last = number;
              break;
            }
            case "leave": {
              const [gone] = consumers.splice(each.consumer, 1);
              if (gone !== undefined) ring.leaveConsumer(gone.id);
              break;
            }
            case "join":
              if (consumers.length < 4) consumers.push({ id: ring.joinConsumer(), last: -1 });
              break;
            case "joinProducer":
              if (producers.length === 0 || (producers.length < 4 && ring.parameters().dynamic)) {
                producers.push(ring.joinProducer());
              }
              break;
            case "leaveProducer": {
              const [gone] = producers.splice(each.producer, 1);
              if (gone !== undefined) ring.leaveProducer(gone);
              break;
            }
            case "clock":
              ring.advanceClock(each.ms);
              ring.tick();
              break;
            case "mode":
              ring.setParameters({ dynamic: each.dynamic });
              break;
            case "overflow":
              ring.setParameters({ overflow: each.overflow });
              break;
            case "lap":
              ring.setParameters({ lap: each.lap });
              break;
            case "reset":
              ring.resetCounters();
              break;
          }
          const rows = ring.consumers();
          expect(rows).toHaveLength(consumers.length + 1);
          for (const row of rows) {
            expect(row.published).toBe(row.delivered + row.dropped + row.owed + row.left);
          }
          const counted = ring.counters();
          const { min, max, dynamic } = ring.parameters();
          if (dynamic) {
            expect(counted.size).toBeGreaterThanOrEqual(min);
            expect(counted.size).toBeLessThanOrEqual(max);
            expect(counted.used % counted.size).toBe(
              (counted.writeOffset - counted.readOffset + counted.size) % counted.size,
            );
          }
          if (consumers.length === 0) expect(counted.used).toBe(0);
        }
      } finally {
        ring.close();
      }
    }),
    { numRuns: 300 },
  );
});
