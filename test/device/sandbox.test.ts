/** What a sandbox may forbid the daemon. */
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { mounted, stopAllMounts } from "../support/mounted.js";
import { consumer, producer, stopAll } from "../support/programs.js";

afterEach(async () => {
  await stopAll();
  await stopAllMounts();
});

// 640x480 is read in one request, 1280x720 in two.
test.each(["640x480", "1280x720"])(
  "without vmsplice(2) a reader is given every frame of %s all the same",
  async (size) => {
    const under = join(import.meta.dirname, "../../build/test-programs/without_vmsplice");
    const daemon = await mounted(["video_nr=10", "dynamic_buffering=1"], { under });
    const reader = consumer([daemon.dev(10), "--method", "read", "--count", "50"]);
    await reader.ready;
    await daemon.joined(10, 1);
    const writer = producer([daemon.dev(10), "--size", size, "--count", "50"]);
    expect(await writer.done).toMatchObject({ frames: 50, errno: null });
    expect(await reader.done).toMatchObject({ frames: 50, torn: 0, gaps: 0, errno: null });
  },
);
