/** V4L2 as a program meets it, one call at a time. */
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Mounted, mounted, stopAllMounts } from "../support/mounted.js";
import { stopAll, type Talker, talker } from "../support/programs.js";

let daemon: Mounted;
let talk: Talker;
const frameBytes = 614400;

beforeEach(async () => {
  daemon = await mounted(["video_nr=10", "dynamic_buffering=1", "card_label=DynamicBuffer"]);
  talk = talker();
});
afterEach(async () => {
  await stopAll();
  await stopAllMounts();
});

async function ok(command: string) {
  const answer = await talk.send(command);
  expect(answer, command).toMatchObject({ ok: true });
  return answer;
}

const open = (name: string, how = "rw nonblock") => ok(`open ${name} ${daemon.dev(10)} ${how}`);

test("it tells who it is, and its format before anybody set one", async () => {
  await open("a");
  expect(await ok("querycap a")).toMatchObject({
    driver: "v4l2 loopback",
    card: "DynamicBuffer",
    bus_info: "platform:v4l2loopback-010",
  });
  expect(await ok("g_fmt a capture")).toMatchObject({
    width: 640,
    height: 480,
    fourcc: "YUYV",
    sizeimage: frameBytes,
  });
});

describe("formats", () => {
  test("a bad value is replaced, never refused", async () => {
    await open("a");
    expect(await ok("try_fmt a output 100000x100000 YUYV")).toMatchObject({ fourcc: "YUYV" });
    expect(await ok("try_fmt a output 320x240 ????")).toMatchObject({ width: 320, fourcc: "YUYV" });
    // Two frames of it fit into the ring at its largest.
    const most = await ok("try_fmt a output 8192x8192 RGB4");
    const max = Number(await daemon.read(10, "dynamic_buffer_max"));
    expect(2 * most.sizeimage).toBeLessThanOrEqual(max);
  });

  test("all are listed while nobody streams, the one while somebody does", async () => {
    await open("a");
    await ok("enum_fmt a output 20");
    await ok("s_fmt a output 640x480 NV12");
    await ok("write a 460800 1");
    await open("b");
    expect(await ok("enum_fmt b capture 0")).toMatchObject({ fourcc: "NV12" });
    expect(await talk.send("enum_fmt b capture 1")).toMatchObject({ errno: "EINVAL" });
  });

  test("the rate is the producer's, and sysfs shows it", async () => {
    await open("a");
    await ok("s_parm a output 1/25");
    await ok(`write a ${frameBytes} 1`);
    expect(await daemon.read(10, "format")).toBe("YUYV:640x480@25\n");
    await daemon.write(10, "format", "@30000/1001");
    expect(await daemon.read(10, "format")).toBe("YUYV:640x480@30000/1001\n");
  });
});

describe("streaming", () => {
  async function streamingPair() {
    await open("out");
    await ok("s_fmt out output 640x480 YUYV");
    await ok("reqbufs out output 4");
    await ok("map out output");
    await open("in");
    await ok("reqbufs in capture 4");
    await ok("map in capture");
    for (let at = 0; at < 4; at += 1) await ok(`qbuf in capture ${at}`);
    await ok("streamon in capture");
    await ok("streamon out output");
  }

  test("what is queued is what is dequeued, with a sequence from 0", async () => {
    await streamingPair();
    for (let at = 0; at < 3; at += 1) {
      await ok(`fill out output ${at} ${at + 10}`);
      await ok(`qbuf out output ${at}`);
      expect(await ok("dqbuf out output")).toMatchObject({ index: at });
      expect(await ok("dqbuf in capture")).toMatchObject({
        index: at,
        bytesused: frameBytes,
        sequence: at,
        first: at + 10,
        last: at + 10,
      });
    }
    expect(await daemon.read(10, "buffers")).toBe("4\n");
    expect(await talk.send("dqbuf in capture")).toMatchObject({ errno: "EAGAIN" });
  });

  test("poll tells what can be done", async () => {
    await open("idle");
    await ok("reqbufs idle capture 2");
    expect((await ok("poll idle in 0")).revents).toContain("err");
    // A process has the buffers of a direction once.
    expect(await talk.send(`open other ${daemon.dev(10)} rw`)).toMatchObject({ ok: true });
    expect(await talk.send("reqbufs other capture 2")).toMatchObject({ errno: "EBUSY" });
    await ok("close idle");
    await streamingPair();
    expect((await ok("poll in in 0")).revents).not.toContain("in");
    expect((await ok("poll out out 0")).revents).toContain("out");
    await ok("qbuf out output 0");
    expect((await ok("poll in in 5000")).revents).toContain("in");
  });

  test("buffers that nobody queued, or that are queued already, are refused", async () => {
    await streamingPair();
    expect(await talk.send("qbuf in capture 0")).toMatchObject({ errno: "EINVAL" });
    expect(await talk.send("qbuf in capture 9")).toMatchObject({ errno: "EINVAL" });
    expect(await talk.send("querybuf in capture 9")).toMatchObject({ errno: "EINVAL" });
    expect(await talk.send("reqbufs in capture 2")).toMatchObject({ errno: "EBUSY" });
    expect(await talk.send(`read in ${frameBytes}`)).toMatchObject({ errno: "EBUSY" });
    expect(await talk.send(`write out ${frameBytes} 1`)).toMatchObject({ errno: "EBUSY" });
  });

  test("STREAMOFF gives all buffers back, and frames still queued were never published", async () => {
    await streamingPair();
    await ok("streamoff in capture");
    expect(await talk.send("dqbuf in capture")).toMatchObject({ errno: "EINVAL" });
    for (let at = 0; at < 4; at += 1) await ok(`qbuf in capture ${at}`);
    await ok("streamon in capture");
    await ok("streamoff out output");
    expect(await daemon.read(10, "state")).toBe("output\n");
    await ok("reqbufs out output 0");
  });

  test("a wait is interrupted by a signal, and ends when a frame comes", async () => {
    const waiter = talker();
    await waiter.send(`open in ${daemon.dev(10)} rw`);
    await waiter.send("reqbufs in capture 2");
    await waiter.send("map in capture");
    await waiter.send("qbuf in capture 0");
    await waiter.send("streamon in capture");
    await waiter.send("alarm 200");
    expect(await waiter.send("dqbuf in capture")).toMatchObject({ errno: "EINTR" });
    const waits = waiter.send("dqbuf in capture");
    await open("out");
    await ok(`write out ${frameBytes} 42`);
    expect(await waits).toMatchObject({ ok: true, first: 42, sequence: 0 });
  });
});

describe("controls and events", () => {
  const keepFormat = 0x0098f900;
  const sustain = 0x0098f901;
  const timeout = 0x0098f902;

  test("a control changes, is told to who subscribed, and is clamped or refused", async () => {
    await open("a");
    await open("b");
    await ok(`subscribe b 3 ${timeout}`);
    await ok(`s_ctrl a ${timeout} 1500`);
    expect(await ok(`g_ctrl b ${timeout}`)).toMatchObject({ value: 1500 });
    expect((await ok("poll b pri 5000")).revents).toContain("pri");
    await ok("dqevent b");
    expect(await talk.send("dqevent b")).toMatchObject({ errno: "ENOENT" });
    expect(await talk.send(`g_ctrl a ${0x00980900}`)).toMatchObject({ errno: "EINVAL" });
  });

  test("keep_format: the format survives its producer", async () => {
    await open("a");
    await ok(`s_ctrl a ${keepFormat} 1`);
    await ok("s_fmt a output 320x240 YUYV");
    await ok("write a 153600 1");
    await ok("close a");
    expect(await daemon.read(10, "format")).toBe("YUYV:320x240@30\n");
    await open("b");
    expect(await ok("g_fmt b capture")).toMatchObject({ width: 320, height: 240 });
  });

  test("timeout: a reader without frames gets a null frame; sustain: the last one again", async () => {
    await open("a");
    await ok(`s_ctrl a ${timeout} 100`);
    await open("r", "r");
    expect(await ok(`read r ${frameBytes}`)).toMatchObject({ count: frameBytes, first: 0 });
    await ok(`s_ctrl a ${timeout} 0`);
    await ok(`s_ctrl a ${sustain} 1`);
    await ok(`write a ${frameBytes} 9`);
    for (let again = 0; again < 3; again += 1) {
      expect(await ok(`read r ${frameBytes}`)).toMatchObject({ count: frameBytes, first: 9 });
    }
    const total = (await daemon.consumers(10)).at(-1) ?? {};
    const value = (name: string) => Number(total[name]);
    expect(value("published")).toBe(
      value("delivered") + value("dropped") + value("owed") + value("left"),
    );
  });
});

test("an unknown ioctl is ENOTTY", async () => {
  await open("a");
  expect(await talk.send("ioctl a 0xc0405699 64")).toMatchObject({ errno: "ENOTTY" });
  expect(await talk.send("ioctl a 0x80045600 4")).toMatchObject({ errno: "ENOTTY" });
});
