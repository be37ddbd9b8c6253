/** An error with an errno's name; `message` is one sentence for a person. */
export class CodedError extends Error {
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.name = "CodedError";
    this.code = code;
  }
}

/** What was typed is wrong: exit code 2, and nothing was started. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** The errno's name of anything thrown; `EIO` where it has none. */
export function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" ? code : "EIO";
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
