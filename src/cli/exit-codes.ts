/** Every exit code of the program. */
export const exitCodes = {
  /** Done, or ended by a signal that asked for it. */
  ok: 0,
  /** It could not be started, or it ended by itself. */
  failure: 1,
  /** What was typed is wrong; nothing was started. */
  usage: 2,
} as const;
