/** One video device: its name and numbers, and the running thing behind. */
import type { NativeDevice } from "../native.js";

export class VideoDevice {
  /** What `dev_debug` holds: kept, and without effect. */
  devDebug = 0;
  /** What `power/control` holds: likewise. */
  powerControl: "auto" | "on" = "auto";

  constructor(
    readonly native: NativeDevice,
    readonly minor: number,
    readonly cardLabel: string,
  ) {}

  get number(): number {
    return this.native.videoNr;
  }

  get name(): string {
    return `video${this.number}`;
  }
}
