import type { ApiError, ErrorReason, FieldViolation } from "./api.js";

/** Why a call failed: the API's reasons, or UNKNOWN for an answer that is not the API's, such as a proxy's page. */
export type FailureReason = ErrorReason | "UNKNOWN";

/** What an error of a certain reason always has, beside what all of them have. */
export type DetailsOf<R extends FailureReason> = R extends "INVALID_FIELD"
  ? { readonly violations: readonly [FieldViolation, ...FieldViolation[]] }
  : R extends "RESOURCE_NOT_FOUND" | "ETAG_MISMATCH"
    ? { readonly metadata: Readonly<Record<string, string>> & { readonly resource: string } }
    : R extends "ALREADY_EXISTS"
      ? { readonly metadata: Readonly<Record<string, string>> & { readonly field: string; readonly value: string } }
      : unknown;

interface Facts {
  readonly reason: FailureReason;
  readonly status: number;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly violations?: readonly FieldViolation[];
  readonly retryAfterMs?: number | undefined;
  readonly requestId?: string | undefined;
  readonly cause?: unknown;
}

/** A call that failed. Branch on `reason`, never on the message. */
export class LlmRouterError extends Error {
  /** Why. Newer servers may have reasons that this version does not know. */
  readonly reason: FailureReason;
  /** The HTTP status; 0 when there was no answer. */
  readonly status: number;
  /** Facts that belong to the reason. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The fields that are wrong, with INVALID_FIELD. */
  readonly violations: readonly FieldViolation[];
  /** How long to wait before the next try, in milliseconds, when the server says so. */
  readonly retryAfterMs: number | undefined;
  /** The request's id: quote it when you report something. */
  readonly requestId: string | undefined;

  constructor(message: string, facts: Facts) {
    super(message, { cause: facts.cause });
    this.name = "LlmRouterError";
    this.reason = facts.reason;
    this.status = facts.status;
    this.metadata = facts.metadata ?? {};
    this.violations = facts.violations ?? [];
    this.retryAfterMs = facts.retryAfterMs;
    this.requestId = facts.requestId;
  }
}

/** Tells whether something that was caught is an error of one of these reasons, and lets TypeScript know what it has. */
export function hasReason<R extends FailureReason>(
  caught: unknown,
  ...reasons: readonly R[]
): caught is LlmRouterError & { readonly reason: R } & DetailsOf<R> {
  return caught instanceof LlmRouterError && (reasons as readonly string[]).includes(caught.reason);
}

/** Makes the error that an answer tells, or that it is not the API's. */
export function errorOf(answer: Response, text: string): LlmRouterError {
  const requestId = answer.headers.get("x-request-id") ?? undefined;
  const seconds = Number(answer.headers.get("retry-after") ?? NaN);
  const known = { status: answer.status, requestId, retryAfterMs: seconds >= 0 ? seconds * 1000 : undefined };
  const body = parse(text);
  if (body === undefined) return new LlmRouterError(`the answer is not the API's: HTTP ${answer.status}`, { reason: "UNKNOWN", ...known });
  let reason: FailureReason = "UNKNOWN";
  let metadata: Record<string, string> = {};
  let violations: FieldViolation[] = [];
  for (const detail of body.details) {
    if ("domain" in detail) ({ reason, metadata } = detail);
    else if ("field_violations" in detail) violations = detail.field_violations;
  }
  return new LlmRouterError(body.message, { reason, metadata, violations, ...known });
}

function parse(text: string): ApiError | undefined {
  try {
    const body: unknown = JSON.parse(text);
    const isOurs = isObject(body) && "message" in body && "details" in body && Array.isArray(body.details);
    return isOurs && (body.details as unknown[]).every(isObject) ? (body as ApiError) : undefined;
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}
