import { CodedError } from "../errors.js";

const word = 2n ** 64n;

/**
 * Reads a number as the kernel's kstrtoul does with base 0: an optional `+`, decimal, `0x` or
 * leading-zero octal, one optional trailing newline, nothing else. Throws EINVAL, or ERANGE where
 * it is too large for a machine word.
 */
export function kstrtoul(text: string): number {
  const match = /^\+?(?:(0[xX])([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))\n?$/.exec(text);
  if (match === null) {
    throw new CodedError("EINVAL", `${JSON.stringify(text)} is not a whole number of 0 or more`);
  }
  const [, , hex, octal, decimal] = match;
  const value =
    hex !== undefined
      ? BigInt(`0x${hex}`)
      : octal !== undefined
        ? BigInt(octal === "0" ? 0 : `0o${octal.slice(1) || "0"}`)
        : BigInt(decimal ?? "0");
  if (value >= word) {
    throw new CodedError("ERANGE", `${text.trim()} is too large for a machine word`);
  }
  return Number(value);
}
