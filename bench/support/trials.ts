// Trials of several contenders, taken in turns: A B C A B C …, so that what disturbs the machine
// for a while disturbs them all.
import type { Effort } from "./bench.js";
import { type Summary, summaryOf, type Trial } from "./statistics.js";

/** One trial: each quantity by its name. */
export type Quantities = Record<string, Trial>;

export interface Contender {
  name: string;
  trial(): Promise<Quantities>;
}

export type Findings = Map<string, Record<string, Summary>>;

export async function inTurns(contenders: readonly Contender[], effort: Effort): Promise<Findings> {
  const found = new Map<string, Quantities[]>(contenders.map(({ name }) => [name, []]));
  for (let round = 0; round < effort.rounds; round += 1) {
    for (const { name, trial } of contenders) {
      found.get(name)?.push(await trial());
    }
  }
  return new Map(
    [...found].map(([name, trials]) => [
      name,
      Object.fromEntries(
        Object.keys(trials[0] ?? {}).map((quantity) => [
          quantity,
          summaryOf(trials.flatMap((each) => each[quantity] ?? [])),
        ]),
      ),
    ]),
  );
}

export function summary(findings: Findings, contender: string, quantity: string): Summary {
  const found = findings.get(contender)?.[quantity];
  if (found === undefined) throw new Error(`${contender} has no ${quantity}`);
  return found;
}
