// All that is ever computed from measurements. Pure: numbers in, numbers out.

function sorted(values: readonly number[]): number[] {
  if (values.length === 0) throw new Error("there is nothing to take a median of");
  return [...values].sort((a, b) => a - b);
}

/** The nearest-rank quantile: `quantile(values, 0.99)` is the value that 1 % lie above. */
export function quantile(values: readonly number[], part: number): number {
  const all = sorted(values);
  const rank = Math.ceil(part * all.length);
  return all[Math.min(Math.max(rank, 1), all.length) - 1] as number;
}

export function median(values: readonly number[]): number {
  const all = sorted(values);
  const middle = all.length >> 1;
  const upper = all[middle] as number;
  return all.length % 2 === 1 ? upper : ((all[middle - 1] as number) + upper) / 2;
}

export function mean(values: readonly number[]): number {
  if (values.length === 0) throw new Error("there is nothing to take a mean of");
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** What one trial found of one quantity. */
export interface Trial {
  median: number;
  p99: number;
}

export function trialOf(samples: readonly number[]): Trial {
  return { median: median(samples), p99: quantile(samples, 0.99) };
}

/** What all trials of one quantity come to: medians over the trials, and how far apart they are. */
export interface Summary extends Trial {
  /** The lowest and the highest of the trials' medians. */
  lowest: number;
  highest: number;
  trials: number;
}

export function summaryOf(trials: readonly Trial[]): Summary {
  const medians = trials.map((trial) => trial.median);
  return {
    median: median(medians),
    p99: median(trials.map((trial) => trial.p99)),
    lowest: Math.min(...medians),
    highest: Math.max(...medians),
    trials: trials.length,
  };
}
