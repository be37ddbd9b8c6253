import { expect, test } from "vitest";
import { mean, median, quantile, summaryOf, trialOf } from "../../bench/support/statistics.js";

test("a median is the middle one, or between the two in the middle", () => {
  expect(median([3, 1, 2])).toBe(2);
  expect(median([4, 1, 3, 2])).toBe(2.5);
  expect(median([10, 9, 2])).toBe(9);
});

test("a quantile is one of the values, by nearest rank", () => {
  const hundred = Array.from({ length: 100 }, (_, at) => 100 - at);
  expect(quantile(hundred, 0.99)).toBe(99);
  expect(quantile(hundred, 1)).toBe(100);
  expect(quantile(hundred, 0)).toBe(1);
  expect(quantile([5], 0.99)).toBe(5);
});

test("a summary is of the trials' medians, and says how far apart they are", () => {
  const trials = [
    [1, 2, 30],
    [4, 5, 60],
    [7, 8, 90],
  ].map(trialOf);
  expect(summaryOf(trials)).toEqual({ median: 5, p99: 60, lowest: 2, highest: 8, trials: 3 });
});

test("nothing has neither a median nor a mean", () => {
  expect(() => median([])).toThrow("nothing");
  expect(() => mean([])).toThrow("nothing");
  expect(mean([1, 2, 6])).toBe(3);
});
