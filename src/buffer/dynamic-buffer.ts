/** A ring of frames for library users: no device, no mount. */
import { type NativeRing, native, type RingCounters, type RingParameters } from "../native.js";
import { countersText, statisticsText } from "./statistics.js";

export interface TakenFrame {
  sequence: number;
  /** CLOCK_MONOTONIC at publishing. */
  timestampNs: bigint;
  /** A copy, the caller's. */
  payload: Buffer;
}

/** Publishes frames into a buffer. */
export interface FrameProducer {
  /** False where the buffer is full and its policy is to wait: publish again later. */
  publish(payload: Uint8Array): boolean;
  leave(): void;
}

/** Takes every frame published since it joined, in order, whoever else takes it too. */
export interface FrameConsumer {
  /** Null where nothing is owed. */
  take(): TakenFrame | null;
  leave(): void;
}

export class DynamicBuffer {
  private readonly ring: NativeRing;

  /** `frameBytes` is the usual length of a frame; the smallest size is two of them. */
  constructor(frameBytes: number, parameters: Partial<RingParameters> = {}) {
    this.ring = new native.Ring({
      sizeimage: frameBytes,
      parameters: { dynamic: true, ...parameters },
    });
  }

  /** Throws EBUSY for a second producer while dynamic buffering is off. */
  joinProducer(): FrameProducer {
    const id = this.ring.joinProducer();
    return {
      publish: (payload) => this.ring.publish(id, payload),
      leave: () => this.ring.leaveProducer(id),
    };
  }

  joinConsumer(name = "library"): FrameConsumer {
    const id = this.ring.joinConsumer(name);
    return { take: () => this.ring.take(id), leave: () => this.ring.leaveConsumer(id) };
  }

  get parameters(): RingParameters {
    return this.ring.parameters();
  }

  /** All or nothing; throws EINVAL where they contradict one another. */
  configure(changes: Partial<RingParameters>): void {
    this.ring.setParameters(changes);
  }

  get counters(): RingCounters {
    return this.ring.counters();
  }

  /** As `dynamic_buffer_stats`. */
  statistics(): string {
    return statisticsText(this.ring.counters());
  }

  /** As `dynamic_buffer_counters`. */
  countersText(): string {
    return countersText(this.ring.counters());
  }

  resetCounters(): void {
    this.ring.resetCounters();
  }

  /** Frees all memory; every call afterwards throws EBADF. */
  close(): void {
    this.ring.close();
  }
}
