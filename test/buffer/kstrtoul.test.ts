import { expect, test } from "vitest";
import { kstrtoul } from "../../src/buffer/kstrtoul.js";
import { parseSize, parseSwitch } from "../../src/buffer/parameters.js";
import { codeOf } from "../../src/errors.js";

function code(read: () => unknown): string {
  try {
    read();
  } catch (error) {
    return codeOf(error);
  }
  return "taken";
}

test.each(["1", "1\n", "0x1\n", "01\n", "+1\n"])("%j is 1", (text) => {
  expect(kstrtoul(text)).toBe(1);
  expect(parseSwitch(text)).toBe(true);
});

test.each([
  ["0", 0],
  ["010", 8],
  ["0x10", 16],
  ["0X1f\n", 31],
  ["4096", 4096],
])("%j is %d", (text, value) => {
  expect(kstrtoul(text)).toBe(value);
});

test.each(["2", "10", "abc", "y", "on", "\n", " 1\n", "1 \n", "1\n\n", "-1", "-0", "", "08", "0x"])(
  "%j is no switch",
  (text) => {
    expect(code(() => parseSwitch(text))).toBe("EINVAL");
  },
);

test("what no machine word holds is out of range", () => {
  expect(kstrtoul("18446744073709551615")).toBeGreaterThan(0);
  expect(code(() => kstrtoul("18446744073709551616"))).toBe("ERANGE");
});

test.each([
  ["1024", 1024],
  ["1K", 1024],
  ["2M\n", 2 * 1024 ** 2],
  ["1g", 1024 ** 3],
])("%j are %d bytes", (text, bytes) => {
  expect(parseSize(text)).toBe(bytes);
});

test.each(["0", "K", "1.5M", "1 M", "1MB", "-1M", "300000G"])("%j is no size", (text) => {
  expect(code(() => parseSize(text))).toBe("EINVAL");
});
