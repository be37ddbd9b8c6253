/** Reader and producer in either order; who may set the format. */
import { afterEach, expect, test } from "vitest";
import { mounted, runProgram, stopAllMounts } from "../support/mounted.js";
import { consumer, producer, stopAll, talker } from "../support/programs.js";

afterEach(async () => {
  await stopAll();
  await stopAllMounts();
});

test("a reader that comes first starts with the producer's first frame", async () => {
  const daemon = await mounted(["video_nr=10", "dynamic_buffering=1"]);
  for (const method of ["mmap", "read"]) {
    const reader = consumer([daemon.dev(10), "--method", method, "--count", "5"]);
    await reader.ready;
    await daemon.joined(10, 1);
    const writer = producer([daemon.dev(10), "--count", "5"]);
    expect(await writer.done).toMatchObject({ frames: 5 });
    expect(await reader.done).toMatchObject({ frames: 5, torn: 0, gaps: 0, errno: null });
  }
});

// Where the page cache comes in, a frame is on its way for longer.
test.each(["passthrough", "page-cache"])(
  "%s: a reader that asks again and again without waiting is given every frame",
  async (mode) => {
    const daemon = await mounted(["video_nr=10", "dynamic_buffering=1", "--io-mode", mode]);
    const words = ["--nonblock", "--spin", "--count", "300", "--idle-ms", "20000"];
    const reader = consumer([daemon.dev(10), ...words]);
    await reader.ready;
    await daemon.joined(10, 1);
    const writer = producer([
      daemon.dev(10),
      "--size",
      "640x480",
      "--fps",
      "200",
      "--count",
      "300",
    ]);
    expect(await writer.done).toMatchObject({ frames: 300, errno: null });
    const read = await reader.done;
    expect(read).toMatchObject({ frames: 300, torn: 0, gaps: 0, errno: null });
    // It did ask when there was none yet.
    expect(read.again).toBeGreaterThan(0);
  },
);

test("a producer of another format ends the stream of a reader that got nothing yet", async () => {
  const daemon = await mounted(["video_nr=10", "dynamic_buffering=1"]);
  const reader = consumer([daemon.dev(10), "--method", "mmap", "--count", "5"]);
  await reader.ready;
  await daemon.joined(10, 1);
  const writer = producer([daemon.dev(10), "--size", "320x240", "--count", "5"]);
  expect(await writer.done).toMatchObject({ frames: 5, errno: null });
  expect(await reader.done).toMatchObject({ frames: 0, errno: "EIO" });
});

test("the format is the producer's while it is there: another gets EBUSY, a reader is told it", async () => {
  const daemon = await mounted(["video_nr=10", "dynamic_buffering=1"]);
  const talk = talker();
  const device = daemon.dev(10);
  for (const name of ["a", "b", "c"]) await talk.send(`open ${name} ${device} rw nonblock`);
  expect(await talk.send("s_fmt a output 320x240 YUYV")).toMatchObject({ ok: true });
  expect(await talk.send("write a 153600 1")).toMatchObject({ ok: true, count: 153600 });
  expect(await talk.send("s_fmt b output 640x480 YUYV")).toMatchObject({ errno: "EBUSY" });
  expect(await talk.send("s_fmt c capture 640x480 RGB3")).toMatchObject({
    ok: true,
    width: 320,
    height: 240,
    fourcc: "YUYV",
  });
  expect(await daemon.read(10, "format")).toBe("YUYV:320x240@30\n");
  expect(await talk.send("read c 153600")).toMatchObject({ ok: true, count: 153600 });
  await talk.send("close a");
  // A reader that was delivered a frame holds it as well.
  expect(await talk.send("s_fmt b output 640x480 YUYV")).toMatchObject({ errno: "EBUSY" });
  await talk.send("close c");
  expect(await talk.send("s_fmt b output 640x480 YUYV")).toMatchObject({ ok: true });
});

test("exclusive_caps: an output until a producer streams, then a camera", async () => {
  const daemon = await mounted(["video_nr=10", "exclusive_caps=1"]);
  const talk = talker();
  const capture = 0x1;
  const output = 0x2;
  await talk.send(`open a ${daemon.dev(10)} rw`);
  const before = (await talk.send("querycap a")).device_caps;
  expect(before & (capture | output)).toBe(output);
  await talk.send("write a 614400 1");
  await talk.send(`open b ${daemon.dev(10)} rw`);
  const after = (await talk.send("querycap b")).device_caps;
  expect(after & (capture | output)).toBe(capture);
});

test("max_openers limits producers and consumers at their first I/O, not at open", async () => {
  const daemon = await mounted(["video_nr=10", "dynamic_buffering=1", "max_openers=2"]);
  const talk = talker();
  for (const name of ["a", "b", "c"]) {
    expect(await talk.send(`open ${name} ${daemon.dev(10)} rw nonblock`)).toMatchObject({
      ok: true,
    });
  }
  expect(await talk.send("write a 614400 1")).toMatchObject({ ok: true });
  expect(await talk.send("read b 614400")).toMatchObject({ ok: true });
  expect(await talk.send("read c 614400")).toMatchObject({ errno: "EBUSY" });
  await expect(daemon.write(10, "max_openers", "1")).rejects.toThrow("Invalid argument");
  await daemon.write(10, "max_openers", "3");
  expect(await talk.send("read c 614400")).toMatchObject({ ok: true });
});

test("any block size writes whole frames, any read size reads them", async () => {
  const daemon = await mounted(["video_nr=10", "dynamic_buffering=1"]);
  const bytes = 614400 * 3;
  const reader = runProgram("bash", [
    "-c",
    'dd if="$0" bs=1000 iflag=fullblock count=1843200 iflag=count_bytes,fullblock status=none | md5sum',
    daemon.dev(10),
  ]);
  await daemon.joined(10, 1);
  const writer = await runProgram("bash", [
    "-c",
    `head -c ${bytes} /dev/urandom > /tmp/v4l2loopback-order.$$ &&
     dd if=/tmp/v4l2loopback-order.$$ of="$0" bs=7777 conv=notrunc status=none &&
     md5sum < /tmp/v4l2loopback-order.$$; rm /tmp/v4l2loopback-order.$$`,
    daemon.dev(10),
  ]);
  expect(writer.code).toBe(0);
  expect((await reader).stdout).toBe(writer.stdout);
});
