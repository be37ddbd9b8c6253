import { readdirSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { runProgram } from "../support/mounted.js";

const folder = "bench/programs";
const programs = readdirSync(folder).filter((name) => name.endsWith(".cc"));

// They use the core as it is; a whole run takes too long for a test.
test.each(programs)("%s still fits the core", async (name) => {
  const flags = ["-std=gnu++20", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"];
  const checked = await runProgram("g++", [...flags, join(folder, name)]);
  expect(checked).toMatchObject({ code: 0, stderr: "" });
});
