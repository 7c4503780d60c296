// Made by `make generate` from the protos; do not edit.
import { download, operation, paged } from "./call.js";

/** A change that an admin made. */
export interface AdminChange {
  /** UUIDv7 of the change. */
  change_id: string;
  /** When. */
  changed_at: string;
  /** Who: the `sub` of the admin's token. */
  admin_id: string;
  /** What kind of thing: `provider`, `model`, `routing_rule` or `platform_key`. */
  resource: string;
  /** UUID of the thing; of its provider for a platform key. */
  resource_id: string;
  /** What was done: `create`, `update`, `disable` or `delete`. */
  action: string;
  /** The fields that changed, as they were; empty for a creation. Never a key. */
  before: Record<string, unknown>;
  /** The same fields as they became; all of them for a creation. Never a key. */
  after: Record<string, unknown>;
}

/** What went wrong: google.rpc.Status as JSON. */
export interface ApiError {
  /** The gRPC status code. */
  code: number;
  /** What went wrong, for people. */
  message: string;
  /** The reason comes first, then what else is known. */
  details: (ErrorInfo | InvalidFields | RetryInfo)[];
}

/** The routing rule that matched a request, as it was called then. */
export interface AppliedRule {
  /** UUID of the rule. It may have been changed or erased since. */
  rule_id: string;
  /** Its name. */
  rule_name: string;
}

/**
 * Why an attempt failed, which decides whose fault it was.
 *
 * - `ATTEMPT_FAILURE_UNSPECIFIED`: Not given, or not known: nobody's fault; it counts neither for nor against
 * the provider.
 * - `ATTEMPT_FAILURE_CONNECT`: No connection, a refused one, or one that broke. The provider's fault.
 * - `ATTEMPT_FAILURE_TIMEOUT`: No answer in time, or a status of 408 or 504. The provider's fault.
 * - `ATTEMPT_FAILURE_SERVER_ERROR`: Another status of 500 or above, or a success that is none: broken off, or
 * not what was asked for. The provider's fault.
 * - `ATTEMPT_FAILURE_RATE_LIMITED`: A status of 429. Counts against the provider.
 * - `ATTEMPT_FAILURE_UNAUTHORIZED`: A status of 401 or 403, at the gateway also 402. With a user's own key it
 * marks that key as failing; it never counts against the provider.
 * - `ATTEMPT_FAILURE_CALLER`: The request was at fault: 400, 413, 422 or another 4xx, a content filter, a prompt
 * too long for the model.
 * - `ATTEMPT_FAILURE_CANCELLED`: The client went away before the answer was there.
 */
export type AttemptFailure = "ATTEMPT_FAILURE_UNSPECIFIED" | "ATTEMPT_FAILURE_CONNECT" | "ATTEMPT_FAILURE_TIMEOUT" | "ATTEMPT_FAILURE_SERVER_ERROR" | "ATTEMPT_FAILURE_RATE_LIMITED" | "ATTEMPT_FAILURE_UNAUTHORIZED" | "ATTEMPT_FAILURE_CALLER" | "ATTEMPT_FAILURE_CANCELLED";

/** The budget as the decision saw it. */
export interface BudgetFacts {
  /** The month's budget in US dollars. Absent: none. */
  monthly_budget_usd?: number;
  /** What the month had cost so far, in US dollars. */
  spent_usd: number;
  /**
   * True when the budget was used up, or what was left of it did not cover the request, and the decision was
   * therefore made among free models: ECO ones, and the model that was asked for by its name.
   */
  downgraded: boolean;
}

/** Everything a decision was made from and what it came to: enough to make it again. */
export interface Decision {
  /** UUIDv7 of the decision. */
  decision_id: string;
  /** UUID of the user it was made for. */
  user_id: string;
  /** When. */
  decided_at: string;
  /** Number of the catalogue snapshot. */
  catalog_snapshot: number;
  /** The power level that was routed for. */
  power_level: PowerLevel;
  /** What the request said it was about. */
  task_type: string;
  /**
   * The strategy of the routing rule if it has one, `balanced` if it has weights of its own; else of the user's
   * settings.
   */
  strategy: string;
  /** The weights that were used. */
  weights: Weights;
  /** What the request asked a model to be able to do. */
  required_capabilities: string[];
  /** The context it asked for, in tokens. */
  min_context_tokens: number;
  /** Input tokens that costs were compared for. */
  input_tokens: number;
  /** Output tokens that costs were compared for. */
  output_tokens: number;
  /** The most fallbacks it asked for. */
  fallback_count: number;
  /** The budget. */
  budget: BudgetFacts;
  /** UUIDs of the providers that were held to be unhealthy. */
  unhealthy_provider_ids: string[];
  /** UUIDs of the providers for which the user had an active key. */
  keyed_provider_ids: string[];
  /** UUIDs of the providers for which the user's key was failing. */
  failing_key_provider_ids: string[];
  /** True when only unhealthy providers were left, and their health was not held against them. */
  degraded: boolean;
  /** Every model of the catalogue: the candidates by rank, then the excluded ones by provider and model name. */
  models: ModelVerdict[];
  /** The model that was asked for by its name; empty: none was. */
  model_name: string;
  /** True when models of other names were allowed to stand in for it. */
  allow_fallbacks: boolean;
  /**
   * UUIDs of the providers without BYOK for which there was no key to use. Only looked for on behalf of the
   * gateway.
   */
  without_credential_provider_ids: string[];
  /** The routing rule that matched; power_level, strategy and weights are what it made of them. Absent: none did. */
  rule?: AppliedRule;
  /** UUIDs of the only providers that the rule let through. Empty: all of them. */
  rule_provider_ids: string[];
}

/** Response of DeleteKey: nothing. */
export interface DeleteKeyResponse {
}

/** Why it went wrong: what programs branch on. */
export interface ErrorInfo {
  "@type": "type.googleapis.com/google.rpc.ErrorInfo";
  reason: ErrorReason;
  domain: "llmrouter";
  /** Facts that belong to the reason. */
  metadata: Record<string, string>;
}

/**
 * Why a request failed. Every error carries exactly one reason, in `google.rpc.ErrorInfo.reason` without the
 * ERROR_REASON_ prefix, with the domain `llmrouter`. Clients should branch on the reason, never on the message.
 *
 * - `INVALID_FIELD` (400): A field's value is wrong; `google.rpc.BadRequest` names each one.
 * - `MALFORMED_REQUEST` (400): The body is no JSON, has a field that does not exist, or a query parameter is
 * unknown; or, over gRPC, the bytes are not the message.
 * - `UNAUTHENTICATED` (401): No token, or one that is expired, not yet valid, wrongly signed, or for another
 * audience.
 * - `ROLE_REQUIRED` (403): The token is good, but its roles do not allow this call.
 * - `ORIGIN_NOT_ALLOWED` (403): A cookie request came from another origin.
 * - `RESOURCE_NOT_FOUND` (404): What was named does not exist, or is not the caller's. `metadata.resource` says
 * which kind.
 * - `UNKNOWN_PATH` (404): No such path, or not with this method.
 * - `ALREADY_EXISTS` (409): The name is taken. `metadata.field` and `metadata.value` say which.
 * - `NO_ELIGIBLE_MODEL` (404): No model of the catalogue may serve this request. `metadata` counts the models
 * behind each reason of exclusion.
 * - `RATE_LIMITED` (429): Too many requests; `google.rpc.RetryInfo` and the header `retry-after` say when to try
 * again.
 * - `BODY_TOO_LARGE` (413): The request or its body is too large (431: its headers).
 * - `UNSUPPORTED_MEDIA_TYPE` (415): A cookie request with a body must be `application/json`; or native gRPC came
 * to Envoy.
 * - `UNAVAILABLE` (503): The service cannot answer now (its database is away, or it is shutting down); try
 * again.
 * - `DEADLINE_EXCEEDED` (504): The deadline passed before the answer was ready, or (408) the request itself took
 * too long to arrive.
 * - `INTERNAL` (500): A fault of the service; the log has it under the request id.
 * - `UNIMPLEMENTED` (501): The RPC does not exist on this server.
 * - `ETAG_MISMATCH` (409): The resource was changed since the etag that was given: read it again.
 * - `BUDGET_EXCEEDED` (429): The month's budget is used up, and the user's settings say `reject`:
 * `google.rpc.RetryInfo` and the header `retry-after` say when the next month begins. At the gateway also,
 * without these, when what is left does not cover the most that the request can cost, or when `downgrade` leaves
 * no free model that may serve it; there the header `x-should-retry` is always `false`.
 */
export type ErrorReason = "INVALID_FIELD" | "MALFORMED_REQUEST" | "UNAUTHENTICATED" | "ROLE_REQUIRED" | "ORIGIN_NOT_ALLOWED" | "RESOURCE_NOT_FOUND" | "UNKNOWN_PATH" | "ALREADY_EXISTS" | "NO_ELIGIBLE_MODEL" | "RATE_LIMITED" | "BODY_TOO_LARGE" | "UNSUPPORTED_MEDIA_TYPE" | "UNAVAILABLE" | "DEADLINE_EXCEEDED" | "INTERNAL" | "UNIMPLEMENTED" | "ETAG_MISMATCH" | "BUDGET_EXCEEDED";

/**
 * Why a model is no candidate: the first of these that holds, in this order, which is not that of the numbers.
 *
 * - `EXCLUSION_UNSPECIFIED`: Not excluded.
 * - `EXCLUSION_MODEL_DISABLED`: The model is disabled.
 * - `EXCLUSION_PROVIDER_DISABLED`: Its provider is disabled.
 * - `EXCLUSION_MODEL_NAME`: Another model was asked for by its name, and no fallback to models of other names.
 * - `EXCLUSION_POWER_LEVEL`: It has another power level than the one routed for, and is not the model that was
 * asked for by its name.
 * - `EXCLUSION_RULE_PROVIDER`: The routing rule that matched lets only other providers through.
 * - `EXCLUSION_OVER_BUDGET`: The month's budget is used up, or what is left of it does not cover the request,
 * and it is not free.
 * - `EXCLUSION_KEY_REQUIRED`: Its provider needs a key of the user's own, and there is no active one.
 * - `EXCLUSION_KEY_FAILING`: The user's key was refused by its provider (401 or 403, at the gateway also 402) in
 * the last 15 minutes.
 * - `EXCLUSION_NO_CREDENTIAL`: There is no key to use: its provider takes no request without one, and there is
 * neither the user's nor the operator's; or it refused the user's in the last 15 minutes, which goes before the
 * operator's even then. Only requests through the gateway are judged by this.
 * - `EXCLUSION_CAPABILITY_MISSING`: It lacks a capability that was asked for.
 * - `EXCLUSION_CONTEXT_TOO_SMALL`: Its context holds fewer tokens than were asked for.
 * - `EXCLUSION_PROVIDER_UNHEALTHY`: Its provider is unhealthy.
 */
export type Exclusion = "EXCLUSION_UNSPECIFIED" | "EXCLUSION_MODEL_DISABLED" | "EXCLUSION_PROVIDER_DISABLED" | "EXCLUSION_MODEL_NAME" | "EXCLUSION_POWER_LEVEL" | "EXCLUSION_RULE_PROVIDER" | "EXCLUSION_OVER_BUDGET" | "EXCLUSION_KEY_REQUIRED" | "EXCLUSION_KEY_FAILING" | "EXCLUSION_NO_CREDENTIAL" | "EXCLUSION_CAPABILITY_MISSING" | "EXCLUSION_CONTEXT_TOO_SMALL" | "EXCLUSION_PROVIDER_UNHEALTHY";

/** A field that is wrong. */
export interface FieldViolation {
  /** Its path in the request, such as `routing_config.cost_weight`. */
  field: string;
  /** What it must be. */
  description: string;
  /** Always empty. */
  reason: string;
}

/** Response of GetUsage. */
export interface GetUsageResponse {
  /** UUID of the user. */
  user_id: string;
  /** First second of the period. */
  period_start: string;
  /** Last second of the period. */
  period_end: string;
  /** Successful requests. */
  total_requests: number;
  /** Input tokens, exact to 2^53. */
  total_input_tokens: number;
  /** Output tokens, exact to 2^53. */
  total_output_tokens: number;
  /** US dollars, at the prices of the time. */
  total_cost_usd: number;
  /** By provider name; only providers with any usage. */
  by_provider: Record<string, ProviderUsage>;
  /** By power level; always all three: ECO, BALANCED and PRECISION. */
  by_power_level: Record<string, PowerLevelUsage>;
  /** Failed requests, not counted in total_requests. */
  failed_requests: number;
}

/** The fields that are wrong: google.rpc.BadRequest. With INVALID_FIELD. */
export interface InvalidFields {
  "@type": "type.googleapis.com/google.rpc.BadRequest";
  /** All that are wrong. */
  field_violations: FieldViolation[];
}

/**
 * One reading of a stored key: who, for whom, which key, why. Rows are chained by hash for each UTC month, so
 * that an edit, a removal or a gap shows.
 */
export interface KeyRead {
  /** When it was read. */
  read_at: string;
  /** UUID of the provider. */
  provider_id: string;
  /** Name of the provider. */
  provider_name: string;
  /** UUID of the key that was read; it may have been deleted since. Empty for the platform's key. */
  key_id: string;
  /** Whose key it was. */
  payer: Payer;
  /** UUID of the caller that read it: the `sub` of a service's token, or the user's own. */
  reader_id: string;
  /**
   * Why: `credential` (a service asked for it), `verify` (the user had it verified) or `gateway` (a request was
   * sent).
   */
  purpose: string;
  /** UUID of the routing decision it was for. Empty when there was none. */
  decision_id: string;
}

/**
 * What a provider made of a key.
 *
 * - `KEY_VERDICT_WORKS`: The provider took it.
 * - `KEY_VERDICT_REFUSED`: The provider refused it (401 or 403).
 * - `KEY_VERDICT_UNREACHABLE`: The provider could not be asked: no connection, no answer in time, or an answer
 * that says nothing of the key.
 */
export type KeyVerdict = "KEY_VERDICT_WORKS" | "KEY_VERDICT_REFUSED" | "KEY_VERDICT_UNREACHABLE";

/** Response of ListAdminChanges. */
export interface ListAdminChangesResponse {
  /** One page, newest first. */
  changes: AdminChange[];
  /** Pass as `page_token` for the next page; empty when there is none. */
  next_page_token: string;
}

/** Response of ListKeyReads. */
export interface ListKeyReadsResponse {
  /** One page, newest first. */
  reads: KeyRead[];
  /** Pass as `page_token` for the next page; empty when there is none. */
  next_page_token: string;
}

/** Response of ListKeys. */
export interface ListKeysResponse {
  /** One page of keys. */
  keys: ProviderKey[];
  /** Pass as `page_token` for the next page; empty when there is none. */
  next_page_token: string;
}

/** Response of ListModels. */
export interface ListModelsResponse {
  /** One page of models. */
  models: Model[];
  /** Pass as `page_token` for the next page; empty when there is none. */
  next_page_token: string;
}

/** Response of ListProviderHealth. */
export interface ListProviderHealthResponse {
  /** One page of providers. */
  providers: ProviderHealth[];
  /** Pass as `page_token` for the next page; empty when there is none. */
  next_page_token: string;
}

/** Response of ListProviders. */
export interface ListProvidersResponse {
  /** One page of providers. */
  providers: Provider[];
  /** Pass as `page_token` for the next page; empty when there is none. */
  next_page_token: string;
}

/** Response of ListRoutingRules. */
export interface ListRoutingRulesResponse {
  /** One page of rules. */
  rules: RoutingRule[];
  /** Pass as `page_token` for the next page; empty when there is none. */
  next_page_token: string;
}

/** Response of ListUsageBuckets. */
export interface ListUsageBucketsResponse {
  /** One for each hour or day of the period, oldest first. */
  buckets: UsageBucket[];
}

/** Response of ListUsageRecords. */
export interface ListUsageRecordsResponse {
  /** One page, newest first. */
  records: UsageRecord[];
  /** Pass as `page_token` for the next page; empty when there is none. */
  next_page_token: string;
}

/** A model of the catalogue: one provider's offer of one language model. */
export interface Model {
  /** UUID, assigned on creation. */
  model_id: string;
  /** UUID of its provider. */
  provider_id: string;
  /** Name of its provider. */
  provider_name: string;
  /** The provider's own identifier of the model, as its API takes it; unique within the provider. */
  model_name: string;
  /** The name to show to people. */
  display_name: string;
  /** Its power level. */
  power_level: PowerLevel;
  /** US dollars per million input tokens. */
  input_cost_per_1m: number;
  /** US dollars per million output tokens. */
  output_cost_per_1m: number;
  /** Typical latency of an answer, in milliseconds. */
  avg_latency_ms: number;
  /** Quality rating, 0 to 10. */
  quality_score: number;
  /** Whether it can stream its answer. */
  supports_streaming: boolean;
  /** The most tokens of prompt and answer together. */
  max_context_tokens: number;
  /** What it can do: any of `chat`, `code`, `vision`, `tools`, `json`, `reasoning`, `streaming`. */
  capabilities: string[];
  /** Whether the model itself is enabled. It takes part in routing when its provider is enabled too. */
  is_enabled: boolean;
  /** Whether its provider needs a key of the user's own. */
  requires_byok: boolean;
  /** When it was created. */
  created_at: string;
  /** When it was last changed. */
  updated_at: string;
  /**
   * Changes with every change of the model. Give it back with an update, and the update fails with ETAG_MISMATCH
   * when somebody else was faster.
   */
  etag: string;
}

/** The fate of one model of the catalogue in one decision. */
export interface ModelVerdict {
  /** UUID of the model. */
  model_id: string;
  /** The provider's own identifier of the model. */
  model_name: string;
  /** UUID of its provider. */
  provider_id: string;
  /** Name of its provider. */
  provider_name: string;
  /** Its power level. */
  power_level: PowerLevel;
  /** Its place among the candidates, from 1. Absent: excluded. */
  rank?: number;
  /** Why it was excluded; unspecified for a candidate. */
  exclusion: Exclusion;
  /** The figures behind the exclusion, in words, for instance `holds 32768 tokens, 100000 were asked for`. */
  exclusion_detail: string;
  /** Sum of the three scores, each times its weight, 0 to 1. Absent: excluded. */
  composite_score?: number;
  /** 1 - cost / (cost of the dearest candidate). Absent: excluded. */
  cost_score?: number;
  /** 1 - latency / (latency of the slowest candidate). Absent: excluded. */
  latency_score?: number;
  /** Quality rating / 10. Absent: excluded. */
  quality_score?: number;
  /**
   * The cost that was compared, in US dollars: of the estimated tokens, or of a million each way. Absent:
   * excluded.
   */
  cost_usd?: number;
  /** The latency that was compared, in milliseconds. Absent: excluded. */
  latency_ms?: number;
  /** True when latency_ms is the median of recent attempts instead of the catalogue's figure. Absent: excluded. */
  latency_is_live?: boolean;
}

/**
 * Whose key paid an attempt.
 *
 * - `PAYER_USER_KEY`: The user's own key.
 * - `PAYER_PLATFORM`: The operator's.
 */
export type Payer = "PAYER_USER_KEY" | "PAYER_PLATFORM";

/**
 * How much quality a request is worth. Each catalogue model has exactly one level.
 *
 * The values carry no POWER_LEVEL_ prefix, because JSON prints an enum value by its name and the public API says
 * `"power_level": "ECO"`. This file is the one place with that exception (see buf.yaml). Lower case is accepted
 * as JSON input. The zero value means "not given" in a request and is never returned.
 *
 * - `ECO`: Free or very cheap models.
 * - `BALANCED`: The best value for money.
 * - `PRECISION`: The highest quality.
 */
export type PowerLevel = "ECO" | "BALANCED" | "PRECISION";

/**
 * How much quality a request is worth. Each catalogue model has exactly one level.
 *
 * The values carry no POWER_LEVEL_ prefix, because JSON prints an enum value by its name and the public API says
 * `"power_level": "ECO"`. This file is the one place with that exception (see buf.yaml). Lower case is accepted
 * as JSON input. The zero value means "not given" in a request and is never returned.
 *
 * - `ECO`: Free or very cheap models.
 * - `BALANCED`: The best value for money.
 * - `PRECISION`: The highest quality.
 */
export type PowerLevelInput = "ECO" | "BALANCED" | "PRECISION" | "eco" | "balanced" | "precision";

/** What was used at one power level. */
export interface PowerLevelUsage {
  /** Successful requests. */
  requests: number;
  /** US dollars, at the prices of the time. */
  cost_usd: number;
  /** Failed requests, not counted in `requests`. */
  failed_requests: number;
}

/** An upstream API that serves models. */
export interface Provider {
  /** UUID, assigned on creation. */
  provider_id: string;
  /** Unique among all providers, 1 to 100 characters. */
  name: string;
  /**
   * The kind of API behind it: `local`, `vllm`, `groq`, `openrouter`, `openai`, `anthropic`, `together` or
   * `huggingface`, or another word of lower-case letters, digits, `-` and `_`, 1 to 50 characters. `local` and
   * `vllm` take chats without a key; `openai` is sent `max_completion_tokens`, all others `max_tokens`; a word
   * that is not listed is called as OpenAI's API, with a bearer key.
   */
  provider_type: string;
  /** Base URL of its OpenAI-compatible API, `https` (or `http` for a local one), at most 2048 characters. */
  api_endpoint: string;
  /** Whether only users with an active key of their own can use it. */
  requires_byok: boolean;
  /** Whether it takes part in routing. */
  is_enabled: boolean;
  /** 0 to 1000; the higher one wins between models with equal composite scores. */
  priority: number;
  /** Free-form settings, an object of at most 16 KiB as JSON. Never put a credential here. */
  config: Record<string, unknown>;
  /** How many enabled models it has. */
  model_count: number;
  /** When it was created. */
  created_at: string;
  /** When it was last changed. */
  updated_at: string;
  /**
   * Changes with every change of the provider. Give it back with an update, and the update fails with
   * ETAG_MISMATCH when somebody else was faster.
   */
  etag: string;
  /** Whether the operator has stored a platform key for it. The key itself is never returned. */
  has_platform_key: boolean;
}

/**
 * The health of a provider as this replica knows it: what it saw itself at once, what others saw within a
 * minute. Attempts are those of the gateway, and those reported by RecordUsage and BatchRecordUsage. Only the
 * provider's own faults count as failures: see AttemptFailure.
 */
export interface ProviderHealth {
  /** UUID of the provider. */
  provider_id: string;
  /** Name of the provider. */
  provider_name: string;
  /** What it all amounts to. */
  status: ProviderStatus;
  /** Attempts in the window that count: successes, and failures by the provider's own fault. */
  attempts: number;
  /** Share of the attempts that succeeded, 0 to 1. Absent: no attempts. */
  success_rate?: number;
  /** Median latency of the successful attempts, in milliseconds. Absent: none with a known latency. */
  p50_latency_ms?: number;
  /** 95th percentile of the same. Absent: likewise. */
  p95_latency_ms?: number;
  /** When an attempt last succeeded, within the window. Absent: none did. */
  last_success_at?: string;
  /** When an attempt last failed by the provider's fault, within the window. Absent: none did. */
  last_failure_at?: string;
  /** Failures since the last success. */
  consecutive_failures: number;
  /** Its enabled models. */
  model_count: number;
  /** When an UNHEALTHY provider may next be tried. Absent for any other. */
  next_probe_at?: string;
}

/** A user's own key for a provider, without the key itself: the plaintext is never returned. */
export interface ProviderKey {
  /** UUID, assigned when it was stored. */
  key_id: string;
  /** UUID of the provider it is for. */
  provider_id: string;
  /** Name of the provider it is for. */
  provider_name: string;
  /** The first 6 characters, to recognise it by. */
  key_prefix: string;
  /** Whether routing may use it. */
  is_active: boolean;
  /** The user's own notes, an object of at most 4 KiB as JSON. */
  metadata: Record<string, unknown>;
  /** When it was first stored. */
  created_at: string;
  /** When it was last replaced or changed. */
  updated_at: string;
  /**
   * When its provider last refused it (401 or 403, at the gateway also 402). It is left out of routing for 15
   * minutes from then on. Absent: not refused since it was stored, activated or last worked.
   */
  refused_at?: string;
}

/**
 * How well a provider does, from the attempts of the last 15 minutes.
 *
 * - `PROVIDER_STATUS_HEALTHY`: At least 95 % of its attempts succeed, at the usual latency.
 * - `PROVIDER_STATUS_DEGRADED`: 80 to 95 % succeed, or the median latency is over twice the catalogue's; it is
 * routed to all the same.
 * - `PROVIDER_STATUS_UNHEALTHY`: Under 80 % succeed (of at least 5), or the last 3 failed: not routed to, but
 * for a probe every 60 s (the server's PROVIDER_REST_SECONDS), until 3 in a row succeed.
 * - `PROVIDER_STATUS_UNKNOWN`: No attempts; it is routed to.
 */
export type ProviderStatus = "PROVIDER_STATUS_HEALTHY" | "PROVIDER_STATUS_DEGRADED" | "PROVIDER_STATUS_UNHEALTHY" | "PROVIDER_STATUS_UNKNOWN";

/** What was used at one provider. */
export interface ProviderUsage {
  /** Successful requests. */
  requests: number;
  /** Input tokens, exact to 2^53. */
  input_tokens: number;
  /** Output tokens, exact to 2^53. */
  output_tokens: number;
  /** US dollars, at the prices of the time. */
  cost_usd: number;
  /** Mean latency of successful requests, in whole milliseconds. */
  avg_latency_ms: number;
  /** Failed requests, not counted in `requests`. */
  failed_requests: number;
}

/** When to try again. The header `retry-after` says the same. */
export interface RetryInfo {
  "@type": "type.googleapis.com/google.rpc.RetryInfo";
  /** Seconds. */
  retry_delay: string;
}

/** Response of Route. */
export interface RouteResponse {
  /** The model to use. */
  primary: ScoredModel;
  /** What to fall back to, best first; at most fallback_count. */
  fallbacks: ScoredModel[];
  /** 1 + the number of fallbacks. */
  total_options: number;
  /** UUIDv7 of this decision; report usage under it. */
  decision_id: string;
  /** Number of the catalogue snapshot the decision was made from. */
  catalog_snapshot: number;
  /** The power level that was routed for. */
  power_level: PowerLevel;
  /** True when every candidate's provider is unhealthy, and the choice was made among them nevertheless. */
  degraded: boolean;
  /** True when the month's budget is used up, and the choice was therefore made among free ECO models. */
  downgraded: boolean;
  /** Every fact the decision was made from, and the fate of every model of the catalogue. Absent without `explain`. */
  explanation?: Decision;
  /** The operator's routing rule that matched the request. Absent: none did. */
  rule?: AppliedRule;
}

/** How a user wants cost, latency and quality weighed. */
export interface RoutingConfig {
  /**
   * `balanced` uses the three weights below; `cost_optimized`, `latency_optimized` and `quality_optimized` weigh
   * their own criterion 0.8 and the other two 0.1 each, whatever the weights below say. Default `balanced`.
   */
  strategy: string;
  /** Weight of the cost score, 0 to 1. Default 0.4. */
  cost_weight: number;
  /** Weight of the latency score, 0 to 1. Default 0.4. */
  latency_weight: number;
  /** Weight of the quality score, 0 to 1. Default 0.2. The three weights sum to 1 (within 0.001). */
  quality_weight: number;
}

/** How a user wants cost, latency and quality weighed. */
export interface RoutingConfigInput {
  /**
   * `balanced` uses the three weights below; `cost_optimized`, `latency_optimized` and `quality_optimized` weigh
   * their own criterion 0.8 and the other two 0.1 each, whatever the weights below say. Default `balanced`.
   */
  strategy?: string | null;
  /** Weight of the cost score, 0 to 1. Default 0.4. */
  cost_weight?: number | null;
  /** Weight of the latency score, 0 to 1. Default 0.4. */
  latency_weight?: number | null;
  /** Weight of the quality score, 0 to 1. Default 0.2. The three weights sum to 1 (within 0.001). */
  quality_weight?: number | null;
}

/**
 * A rule of the operator: for the requests that meet its condition it sets the power level, the weights, or the
 * providers. Of the active rules the first one that matches holds, in the order of their priorities; the
 * decision names it.
 */
export interface RoutingRule {
  /** UUID, assigned on creation. */
  rule_id: string;
  /** Unique among all rules, 1 to 100 characters. */
  rule_name: string;
  /** 0 to 1000; the rule with the higher one is tried first, of equal ones the one whose name comes first. */
  priority: number;
  /** Whether it takes part in routing. */
  is_active: boolean;
  /**
   * When the rule holds: a CEL expression of type bool, at most 1,000 characters. Empty: always. It knows
   * `task_type` (string; the request's), `power_level` (string; `ECO`, `BALANCED` or `PRECISION`: the one that was
   * asked for, else the one of the user's settings), `model` (string; the model that was asked for by its name,
   * else empty), `required_capabilities` (list of strings), `min_context_tokens`, `input_tokens` and
   * `output_tokens` (int; the request's estimates, 0 when there is none), `user_id` (string) and `now` (timestamp;
   * UTC, in whole minutes). For instance `task_type == "batch" && (now.getHours() >= 22 || now.getHours() < 6)`.
   * It may have no regular expression, no comprehension (`exists`, `all`, `map` and so on) within another one, and
   * a time zone only written out, as in `now.getHours("Europe/Berlin")`. Where it cannot be evaluated, as after a
   * division by zero, the rule does not match. Chat requests under /v1 have no task type: there it is empty. Their
   * input_tokens are estimated, their output_tokens are `max_tokens` or 500, times `n`.
   */
  condition: string;
  /**
   * The power level to route for, whatever was asked for. It is not held against a model that was asked for by its
   * name. Absent: the rule leaves it as it is.
   */
  power_level?: PowerLevel;
  /**
   * How candidates are weighed: `balanced` (0.4 cost, 0.4 latency, 0.2 quality), or `cost_optimized`,
   * `latency_optimized` or `quality_optimized` (0.8 their own criterion, 0.1 each of the others). Empty: the rule
   * has weights of its own, or leaves them as they are.
   */
  strategy: string;
  /**
   * How candidates are weighed, exactly: each weight 0 to 1, together 1 (within 0.001). Absent: the rule has a
   * strategy, or leaves them as they are.
   */
  weights?: Weights;
  /** UUIDs of the only providers that may be used, at most 50. Empty: all of them. */
  provider_ids: string[];
  /** When it was created. */
  created_at: string;
  /** When it was last changed. */
  updated_at: string;
  /**
   * Changes with every change of the rule. Give it back with an update, and the update fails with ETAG_MISMATCH
   * when somebody else was faster.
   */
  etag: string;
}

/**
 * A model with its scores. All scores lie in [0, 1], higher is better, and are relative to this request's
 * candidates.
 */
export interface ScoredModel {
  /** UUID of the model. */
  model_id: string;
  /** UUID of its provider. */
  provider_id: string;
  /** The provider's own identifier of the model: what to send it. */
  model_name: string;
  /** Name of the provider. */
  provider_name: string;
  /** cost_score, latency_score and quality_score, each times its weight, summed. */
  composite_score: number;
  /** 1 - cost / (cost of the dearest candidate); 1 when all are free. */
  cost_score: number;
  /** 1 - latency / (latency of the slowest candidate). */
  latency_score: number;
  /** quality_rating / 10. */
  quality_score: number;
  /** US dollars per million input tokens. */
  input_cost_per_1m: number;
  /** US dollars per million output tokens. */
  output_cost_per_1m: number;
  /**
   * Latency in milliseconds, as it was compared: the median of the model's successful attempts of the last 15
   * minutes once there are 20, until then the catalogue's figure.
   */
  avg_latency_ms: number;
  /** Quality rating, 0 to 10. */
  quality_rating: number;
  /** The provider's priority, 0 to 1000. */
  priority: number;
  /** The name to show to people. */
  display_name: string;
  /** Base URL of the provider's OpenAI-compatible API. */
  api_endpoint: string;
}

/** A user's preferences. A user who never changed any has the defaults. */
export interface Settings {
  /** UUID of the user. */
  user_id: string;
  /** The level used when a request names none. Default BALANCED. */
  preferred_power_level: PowerLevel;
  /** How candidates are weighed. */
  routing_config: RoutingConfig;
  /** The most to spend in a calendar month (UTC), in US dollars, with cents. Absent: no budget. */
  monthly_budget_usd?: number;
  /** What was spent in the current calendar month (UTC), in US dollars. */
  current_month_spend_usd: number;
  /** When they were last changed. Absent: never. */
  updated_at?: string;
  /**
   * What happens to routing once the month's spend has reached the budget: `downgrade` (only free ECO models are
   * candidates) or `reject` (BUDGET_EXCEEDED). Default `downgrade`.
   */
  on_budget_exceeded: string;
}

/** What was used within one hour or day. */
export interface UsageBucket {
  /** Its first moment. */
  start: string;
  /** Successful requests. */
  requests: number;
  /** Failed requests, not counted in `requests`. */
  failed_requests: number;
  /** Input tokens, exact to 2^53. */
  input_tokens: number;
  /** Output tokens, exact to 2^53. */
  output_tokens: number;
  /** US dollars, at the prices of the time. */
  cost_usd: number;
  /** Mean latency of successful requests, in whole milliseconds. */
  avg_latency_ms: number;
}

/** One attempt at a provider. */
export interface UsageRecord {
  /** UUIDv7 of the record. */
  usage_id: string;
  /** The reporter's own id of the attempt. */
  request_id: string;
  /** When it happened. */
  occurred_at: string;
  /** UUID of the provider. */
  provider_id: string;
  /** Name of the provider. */
  provider_name: string;
  /** UUID of the model. */
  model_id: string;
  /** The provider's own identifier of the model. */
  model_name: string;
  /** The model's power level when it was recorded. */
  power_level: PowerLevel;
  /** Whose key paid. */
  payer: Payer;
  /** Input tokens. */
  input_tokens: number;
  /** Output tokens. */
  output_tokens: number;
  /** US dollars, at the prices of the time. */
  cost_usd: number;
  /** How long the answer took, in milliseconds. Absent: not known. */
  latency_ms?: number;
  /** Whether it succeeded. */
  status: UsageStatus;
  /** Why it failed; unspecified for a success. */
  failure: AttemptFailure;
  /** What went wrong, in the reporter's words. */
  error_message: string;
  /** UUID of the routing decision it followed. Empty: none. */
  decision_id: string;
  /** Those of the input tokens that the provider had in its cache. */
  cached_tokens: number;
  /** Those of the output tokens that went into reasoning. */
  reasoning_tokens: number;
  /** True when the tokens, and so the cost, are an estimate, because the answer did not tell them. */
  is_estimated: boolean;
}

/**
 * Whether an attempt succeeded.
 *
 * - `USAGE_STATUS_SUCCESS`: The provider answered.
 * - `USAGE_STATUS_ERROR`: The attempt failed. It counts as a failed request; tokens that the provider billed are
 * still paid for.
 */
export type UsageStatus = "USAGE_STATUS_SUCCESS" | "USAGE_STATUS_ERROR";

/**
 * Whether an attempt succeeded.
 *
 * - `USAGE_STATUS_SUCCESS`: The provider answered.
 * - `USAGE_STATUS_ERROR`: The attempt failed. It counts as a failed request; tokens that the provider billed are
 * still paid for.
 */
export type UsageStatusInput = "USAGE_STATUS_SUCCESS" | "USAGE_STATUS_ERROR" | "usage_status_success" | "usage_status_error";

/** Response of VerifyKey. */
export interface VerifyKeyResponse {
  /** What came of it. */
  verdict: KeyVerdict;
  /** The same in a sentence for people, without anything the provider wrote. */
  message: string;
  /** How long the provider took to answer, in milliseconds. */
  latency_ms: number;
}

/** How much each criterion counted; together 1 (within 0.001). */
export interface Weights {
  /** Of the cost score. */
  cost: number;
  /** Of the latency score. */
  latency: number;
  /** Of the quality score. */
  quality: number;
}

/** How much each criterion counted; together 1 (within 0.001). */
export interface WeightsInput {
  /** Of the cost score. */
  cost?: number | null;
  /** Of the latency score. */
  latency?: number | null;
  /** Of the quality score. */
  quality?: number | null;
}

/** Request of listKeyReads. */
export interface ListKeyReadsRequest {
  /** Only readings of this key, a UUID. Default: all. */
  key_id?: string;
  /** The most rows in one answer, 1 to 500. Default (0) 100. */
  page_size?: number;
  /** The `next_page_token` of the answer before; empty for the first page. */
  page_token?: string;
}

/** Request of listAdminChanges. */
export interface ListAdminChangesRequest {
  /** Only changes of this thing, a UUID. Default: all. */
  resource_id?: string;
  /** Only changes by this admin, a UUID. Default: all. */
  admin_id?: string;
  /** The most changes in one answer, 1 to 500. Default (0) 100. */
  page_size?: number;
  /** The `next_page_token` of the answer before; empty for the first page. */
  page_token?: string;
}

/** Request of storeKey. */
export interface StoreKeyRequest {
  /** UUID of the provider the key is for. */
  provider_id: string;
  /** The key, 16 to 512 printable ASCII characters without spaces; white space around it is removed. */
  api_key: string;
  /** The user's own notes, an object of at most 4 KiB as JSON. Default {}. */
  metadata?: Record<string, unknown> | null;
}

/** Request of listKeys. */
export interface ListKeysRequest {
  /** The most keys in one answer, 1 to 500. Default (0) 100. */
  page_size?: number;
  /** The `next_page_token` of the answer before; empty for the first page. */
  page_token?: string;
}

/** Request of updateKey. */
export interface UpdateKeyRequest {
  /** UUID of the key, from the path. */
  key_id: string;
  /** Whether routing may use it. Activating it also forgets that its provider refused it. */
  is_active?: boolean | null;
  /** New notes, an object of at most 4 KiB as JSON; they replace the old ones as a whole. */
  metadata?: Record<string, unknown> | null;
}

/** Request of deleteKey. */
export interface DeleteKeyRequest {
  /** UUID of the key, from the path. */
  key_id: string;
}

/** Request of verifyKey. */
export interface VerifyKeyRequest {
  /** UUID of the key, from the path. */
  key_id: string;
}

/** Request of listProviderHealth. */
export interface ListProviderHealthRequest {
  /** The most providers in one answer, 1 to 500. Default (0) 100. */
  page_size?: number;
  /** The `next_page_token` of the answer before; empty for the first page. */
  page_token?: string;
}

/** Request of getProviderHealth. */
export interface GetProviderHealthRequest {
  /** UUID of the provider, from the path. */
  provider_id: string;
}

/** Request of listModels. */
export interface ListModelsRequest {
  /** Only models of this level. Default: all. */
  power_level?: PowerLevelInput;
  /** Only models of this provider, a UUID. Default: all. */
  provider_id?: string;
  /** The most models in one answer, 1 to 500. Default (0) 100. */
  page_size?: number;
  /** The `next_page_token` of the answer before; empty for the first page. */
  page_token?: string;
  /** Also disabled models, and those of disabled providers. Needs the role admin. Default false. */
  include_disabled?: boolean;
}

/** Request of createModel. */
export interface CreateModelRequest {
  /** UUID of its provider. */
  provider_id: string;
  /** The provider's own identifier of the model, 1 to 200 characters, unique within the provider. */
  model_name: string;
  /** The name to show to people, 1 to 200 characters. Default: model_name. */
  display_name?: string | null;
  /** Its power level. */
  power_level: PowerLevelInput;
  /** US dollars per million input tokens, 0 to 999,999 with at most 4 decimals. Default 0. */
  input_cost_per_1m?: number | null;
  /** US dollars per million output tokens, 0 to 999,999 with at most 4 decimals. Default 0. */
  output_cost_per_1m?: number | null;
  /** Typical latency of an answer, 0 to 3,600,000 milliseconds. Default 500. */
  avg_latency_ms?: number | null;
  /** Quality rating, 0 to 10 with at most 2 decimals. Default 5. */
  quality_score?: number | null;
  /** Whether it can stream its answer. Default true. */
  supports_streaming?: boolean | null;
  /** The most tokens of prompt and answer together, 1 to 1,000,000,000. Default 4096. */
  max_context_tokens?: number | null;
  /**
   * What it can do: any of `chat`, `code`, `vision`, `tools`, `json`, `reasoning`, `streaming`. `streaming`
   * follows supports_streaming. Default: none but that.
   */
  capabilities?: string[] | null;
  /** Whether it takes part in routing. Default true. */
  is_enabled?: boolean | null;
}

/** Request of getModel. */
export interface GetModelRequest {
  /** UUID of the model, from the path. */
  model_id: string;
}

/** Request of updateModel. */
export interface UpdateModelRequest {
  /** UUID of the model, from the path. */
  model_id: string;
  /** New identifier, 1 to 200 characters. */
  model_name?: string | null;
  /** New name to show, 1 to 200 characters. */
  display_name?: string | null;
  /** New power level. */
  power_level?: PowerLevelInput | null;
  /** New price of input tokens, 0 to 999,999 with at most 4 decimals. */
  input_cost_per_1m?: number | null;
  /** New price of output tokens, 0 to 999,999 with at most 4 decimals. */
  output_cost_per_1m?: number | null;
  /** New typical latency, 0 to 3,600,000 milliseconds. */
  avg_latency_ms?: number | null;
  /** New quality rating, 0 to 10 with at most 2 decimals. */
  quality_score?: number | null;
  /** Whether it can stream. */
  supports_streaming?: boolean | null;
  /** New context size, 1 to 1,000,000,000 tokens. */
  max_context_tokens?: number | null;
  /** New capabilities; given, they replace the old ones as a whole. An empty list leaves them as they are. */
  capabilities?: string[] | null;
  /** Enable or disable. */
  is_enabled?: boolean | null;
  /** The etag of the model as it was read: the change is made only if it is still that. Default: whatever it is. */
  etag?: string | null;
}

/** Request of disableModel. */
export interface DisableModelRequest {
  /** UUID of the model, from the path. */
  model_id: string;
  /** As in UpdateModelRequest. */
  etag?: string;
}

/** Request of listProviders. */
export interface ListProvidersRequest {
  /** Only enabled providers. Default false: all. */
  enabled_only?: boolean;
  /** The most providers in one answer, 1 to 500. Default (0) 100. */
  page_size?: number;
  /** The `next_page_token` of the answer before; empty for the first page. */
  page_token?: string;
}

/** Request of createProvider. */
export interface CreateProviderRequest {
  /** Unique name, 1 to 100 characters. */
  name: string;
  /** The kind of API, for instance `openai`, 1 to 50 characters: see Provider. */
  provider_type: string;
  /**
   * Base URL of its OpenAI-compatible API. A loopback, private or link-local address, or `localhost`, is refused
   * unless the operator has allowed it. What another name leads to is looked at when a key is verified, and not
   * before.
   */
  api_endpoint: string;
  /** Whether users need a key of their own. Default true. */
  requires_byok?: boolean | null;
  /** Whether it takes part in routing. Default true. */
  is_enabled?: boolean | null;
  /** 0 to 1000. Default 50. */
  priority?: number | null;
  /** Free-form settings. Default {}. */
  config?: Record<string, unknown> | null;
}

/** Request of getProvider. */
export interface GetProviderRequest {
  /** UUID of the provider, from the path. */
  provider_id: string;
}

/** Request of updateProvider. */
export interface UpdateProviderRequest {
  /** UUID of the provider, from the path. */
  provider_id: string;
  /** New name, 1 to 100 characters. */
  name?: string | null;
  /** New kind of API, 1 to 50 characters. */
  provider_type?: string | null;
  /** New base URL. */
  api_endpoint?: string | null;
  /** Whether users need a key of their own. */
  requires_byok?: boolean | null;
  /** Enable or disable. */
  is_enabled?: boolean | null;
  /** New priority, 0 to 1000. */
  priority?: number | null;
  /** New settings; they replace the old ones as a whole. */
  config?: Record<string, unknown> | null;
  /** The etag of the provider as it was read: the change is made only if it is still that. Default: whatever it is. */
  etag?: string | null;
}

/** Request of disableProvider. */
export interface DisableProviderRequest {
  /** UUID of the provider, from the path. */
  provider_id: string;
  /** As in UpdateProviderRequest. */
  etag?: string;
}

/** Request of setPlatformKey. */
export interface SetPlatformKeyRequest {
  /** UUID of the provider, from the path. */
  provider_id: string;
  /** The key, 16 to 512 printable ASCII characters without spaces; white space around it is removed. */
  api_key: string;
}

/** Request of deletePlatformKey. */
export interface DeletePlatformKeyRequest {
  /** UUID of the provider, from the path. */
  provider_id: string;
}

/** Request of listRoutingRules. */
export interface ListRoutingRulesRequest {
  /** Only active rules. Default false: all. */
  active_only?: boolean;
  /** The most rules in one answer, 1 to 500. Default (0) 100. */
  page_size?: number;
  /** The `next_page_token` of the answer before; empty for the first page. */
  page_token?: string;
}

/** Request of createRoutingRule. */
export interface CreateRoutingRuleRequest {
  /** Unique name, 1 to 100 characters. */
  rule_name: string;
  /** 0 to 1000. Default 50. */
  priority?: number | null;
  /** Whether it takes part in routing, which at most 200 rules do. Default true. */
  is_active?: boolean | null;
  /** When the rule holds: a CEL expression of type bool, at most 1,000 characters. Default: always. */
  condition?: string | null;
  /** The power level to route for. Default: the rule leaves it as it is. */
  power_level?: PowerLevelInput | null;
  /** How candidates are weighed: `balanced`, `cost_optimized`, `latency_optimized` or `quality_optimized`. */
  strategy?: string | null;
  /** How candidates are weighed, exactly: each weight 0 to 1, together 1 (within 0.001). */
  weights?: WeightsInput | null;
  /** UUIDs of the only providers that may be used, at most 50. Default: all of them. */
  provider_ids?: string[] | null;
}

/** Request of getRoutingRule. */
export interface GetRoutingRuleRequest {
  /** UUID of the rule, from the path. */
  rule_id: string;
}

/** Request of updateRoutingRule. */
export interface UpdateRoutingRuleRequest {
  /** UUID of the rule, from the path. */
  rule_id: string;
  /** New name, 1 to 100 characters. */
  rule_name?: string | null;
  /** New priority, 0 to 1000. */
  priority?: number | null;
  /** Activate or deactivate. */
  is_active?: boolean | null;
  /** New condition, at most 1,000 characters; an empty one holds always. */
  condition?: string | null;
  /** New power level. */
  power_level?: PowerLevelInput | null;
  /** True: the rule leaves the power level as it is from now on. Not together with power_level. */
  clear_power_level?: boolean | null;
  /** New strategy, in place of the rule's strategy or weights. */
  strategy?: string | null;
  /** New weights, in place of the rule's strategy or weights. Not together with strategy. */
  weights?: WeightsInput | null;
  /** True: the rule has neither strategy nor weights from now on. Not together with one of them. */
  clear_weights?: boolean | null;
  /**
   * UUIDs of the only providers that may be used; given, they replace the old ones as a whole. An empty list
   * leaves them as they are.
   */
  provider_ids?: string[] | null;
  /** True: the rule lets every provider through from now on. Not together with provider_ids. */
  clear_provider_ids?: boolean | null;
  /** The etag of the rule as it was read: the change is made only if it is still that. Default: whatever it is. */
  etag?: string | null;
}

/** Request of deleteRoutingRule. */
export interface DeleteRoutingRuleRequest {
  /** UUID of the rule, from the path. */
  rule_id: string;
  /** As in UpdateRoutingRuleRequest. */
  etag?: string;
}

/** Request of route. */
export interface RouteRequest {
  /** Default: the user's preferred power level. */
  power_level?: PowerLevelInput | null;
  /**
   * What the request is about, for instance `chat`, at most 64 characters. Noted, and known to the routing rules;
   * it changes no choice by itself.
   */
  task_type?: string | null;
  /** The most fallbacks in the answer, 1 to 5. Default 3. */
  fallback_count?: number | null;
  /** Only models that can do all of these: `chat`, `code`, `vision`, `tools`, `json`, `reasoning`, `streaming`. */
  required_capabilities?: string[] | null;
  /** Only models whose context holds at least this many tokens, of prompt and answer together. Default 0: any. */
  min_context_tokens?: number | null;
  /**
   * The expected prompt, in tokens. Given with or without the expected answer, costs are compared for this request
   * instead of for a million tokens each way.
   */
  estimated_input_tokens?: number | null;
  /** The expected answer, in tokens. */
  estimated_output_tokens?: number | null;
  /** UUID of the user to route for: required from the role service; else absent, or the caller's own. */
  user_id?: string | null;
  /** Whether the answer has an explanation. Default false. */
  explain?: boolean | null;
}

/** Request of getDecision. */
export interface GetDecisionRequest {
  /** UUID of the decision, from the path. */
  decision_id: string;
}

/** Request of getSettings. */
export interface GetSettingsRequest {
}

/** Request of updateSettings. */
export interface UpdateSettingsRequest {
  /** The level to use when a request names none. */
  preferred_power_level?: PowerLevelInput | null;
  /** Merged, field by field, into the stored one; the result is validated as a whole. */
  routing_config?: RoutingConfigInput | null;
  /** The most to spend in a calendar month, 0 to 1,000,000 US dollars with at most 2 decimals. */
  monthly_budget_usd?: number | null;
  /** Removes the budget. Not together with monthly_budget_usd. Default false. */
  clear_monthly_budget?: boolean | null;
  /** What to do once the budget is used up: `downgrade` or `reject`. */
  on_budget_exceeded?: string | null;
}

/** Request of getUsage. */
export interface GetUsageRequest {
  /** The last so many UTC days, today included, 1 to 365. Default 30. Not together with start_date or end_date. */
  days?: number;
  /** First UTC day, as YYYY-MM-DD. Needs end_date. */
  start_date?: string;
  /** Last UTC day, as YYYY-MM-DD, at most 365 days in all. Needs start_date. */
  end_date?: string;
  /** UUID of the user: required from the role service; else absent, or the caller's own. */
  user_id?: string;
}

/** Request of listUsageBuckets. */
export interface ListUsageBucketsRequest {
  /** `day` (UTC) or `hour`. Default `day`. */
  granularity?: string;
  /**
   * First UTC day, as YYYY-MM-DD; by hour at most 62 days ago. Default: 30 days by day, or 2 days by hour, ending
   * with end_date.
   */
  start_date?: string;
  /** Last UTC day, as YYYY-MM-DD. Default today. At most 365 days in all by day, 31 by hour. */
  end_date?: string;
  /** Only usage of this provider, a UUID. Default: all. */
  provider_id?: string;
  /** Only usage of this model, a UUID. Default: all. */
  model_id?: string;
  /** Only usage at this power level. Default: all. */
  power_level?: PowerLevelInput;
  /** UUID of the user: required from the role service; else absent, or the caller's own. */
  user_id?: string;
}

/** Request of listUsageRecords. */
export interface ListUsageRecordsRequest {
  /** First UTC day, as YYYY-MM-DD. Default: 30 days ending with end_date. */
  start_date?: string;
  /** Last UTC day, as YYYY-MM-DD. Default today. At most 365 days in all. */
  end_date?: string;
  /** Only records of this provider, a UUID. Default: all. */
  provider_id?: string;
  /** Only records of this model, a UUID. Default: all. */
  model_id?: string;
  /** Only records at this power level. Default: all. */
  power_level?: PowerLevelInput;
  /** Only successes or only errors. Default: all. */
  status?: UsageStatusInput;
  /** UUID of the user: required from the role service; else absent, or the caller's own. */
  user_id?: string;
  /** The most records in one answer, 1 to 500. Default (0) 100. */
  page_size?: number;
  /** The `next_page_token` of the answer before; empty for the first page. */
  page_token?: string;
}

/** Request of exportUsage. */
export interface ExportUsageRequest {
  /** First UTC day, as YYYY-MM-DD. Default: 30 days ending with end_date. */
  start_date?: string;
  /** Last UTC day, as YYYY-MM-DD. Default today. At most 365 days in all. */
  end_date?: string;
  /** Only records of this provider, a UUID. Default: all. */
  provider_id?: string;
  /** Only records of this model, a UUID. Default: all. */
  model_id?: string;
  /** Only records at this power level. Default: all. */
  power_level?: PowerLevelInput;
  /** Only successes or only errors. Default: all. */
  status?: UsageStatusInput;
  /** UUID of the user: required from the role service; else absent, or the caller's own. */
  user_id?: string;
}

/**
 * Lists when the caller's own keys (and platform keys on the caller's behalf) were read, newest first.
 *
 * For every user, about themselves. Errors: INVALID_FIELD.
 */
export const listKeyReads = /* @__PURE__ */ paged<ListKeyReadsRequest, ListKeyReadsResponse, "reads">("GET", "/api/v2/llm/audit/key-reads", "reads");

/**
 * Lists what admins changed in the catalogue and its routing rules, newest first.
 *
 * Needs the role admin. Errors: INVALID_FIELD.
 */
export const listAdminChanges = /* @__PURE__ */ paged<ListAdminChangesRequest, ListAdminChangesResponse, "changes">("GET", "/api/v2/llm/audit/changes", "changes");

/**
 * Stores the caller's key for a provider and activates it; a key already stored for that provider is replaced.
 *
 * Answers HTTP 201 for a new key, 200 for a replaced one.
 *
 * Errors: INVALID_FIELD; RESOURCE_NOT_FOUND when there is no such provider; RATE_LIMITED.
 */
export const storeKey = /* @__PURE__ */ operation<StoreKeyRequest, ProviderKey>("POST", "/api/v2/llm/byok");

/**
 * Lists the caller's keys by provider name.
 *
 * Errors: INVALID_FIELD for a page_size or page_token out of range.
 */
export const listKeys = /* @__PURE__ */ paged<ListKeysRequest, ListKeysResponse, "keys">("GET", "/api/v2/llm/byok", "keys");

/**
 * Activates or deactivates one of the caller's keys, or changes its notes.
 *
 * The key itself is replaced by StoreKey.
 *
 * Errors: INVALID_FIELD; RESOURCE_NOT_FOUND when there is no such key or it is another user's; RATE_LIMITED.
 */
export const updateKey = /* @__PURE__ */ operation<UpdateKeyRequest, ProviderKey>("PUT", "/api/v2/llm/byok/{key_id}");

/**
 * Erases one of the caller's keys for good.
 *
 * Errors: INVALID_FIELD; RESOURCE_NOT_FOUND when there is no such key or it is another user's; RATE_LIMITED.
 */
export const deleteKey = /* @__PURE__ */ operation<DeleteKeyRequest, DeleteKeyResponse>("DELETE", "/api/v2/llm/byok/{key_id}");

/**
 * Tries one of the caller's keys at its provider, by asking for the provider's list of models.
 *
 * Takes at most 8 s.
 *
 * Errors: INVALID_FIELD; RESOURCE_NOT_FOUND when there is no such key or it is another user's; RATE_LIMITED.
 */
export const verifyKey = /* @__PURE__ */ operation<VerifyKeyRequest, VerifyKeyResponse>("POST", "/api/v2/llm/byok/{key_id}:verify");

/**
 * Lists the health of the enabled providers, by descending priority, then name.
 *
 * Errors: INVALID_FIELD for a page_size or page_token out of range.
 */
export const listProviderHealth = /* @__PURE__ */ paged<ListProviderHealthRequest, ListProviderHealthResponse, "providers">("GET", "/api/v2/llm/health/providers", "providers");

/**
 * Returns the health of one enabled provider.
 *
 * Errors: INVALID_FIELD; RESOURCE_NOT_FOUND.
 */
export const getProviderHealth = /* @__PURE__ */ operation<GetProviderHealthRequest, ProviderHealth>("GET", "/api/v2/llm/health/providers/{provider_id}");

/**
 * Lists the enabled models of enabled providers, by power level, then provider name, then model name.
 *
 * Errors: INVALID_FIELD for a provider_id that is no UUID, or a page_size or page_token out of range. A
 * provider_id that does not exist gives an empty list.
 */
export const listModels = /* @__PURE__ */ paged<ListModelsRequest, ListModelsResponse, "models">("GET", "/api/v2/llm/models", "models");

/**
 * Creates a model.
 *
 * Answers HTTP 201.
 *
 * Errors: INVALID_FIELD; RESOURCE_NOT_FOUND when there is no such provider; ALREADY_EXISTS when the provider has
 * a model of this name.
 */
export const createModel = /* @__PURE__ */ operation<CreateModelRequest, Model>("POST", "/api/v2/llm/models");

/**
 * Returns a model, enabled or not.
 *
 * Errors: INVALID_FIELD; RESOURCE_NOT_FOUND.
 */
export const getModel = /* @__PURE__ */ operation<GetModelRequest, Model>("GET", "/api/v2/llm/models/{model_id}");

/**
 * Changes the given fields of a model and leaves the others as they are.
 *
 * What was used before keeps its price.
 *
 * Errors: INVALID_FIELD; RESOURCE_NOT_FOUND; ALREADY_EXISTS when the provider has a model of the new name;
 * ETAG_MISMATCH.
 */
export const updateModel = /* @__PURE__ */ operation<UpdateModelRequest, Model>("PUT", "/api/v2/llm/models/{model_id}");

/**
 * Disables a model: it takes no part in routing until it is enabled again.
 *
 * Nothing is erased; doing it twice is no error.
 *
 * Errors: INVALID_FIELD; RESOURCE_NOT_FOUND; ETAG_MISMATCH.
 */
export const disableModel = /* @__PURE__ */ operation<DisableModelRequest, Model>("DELETE", "/api/v2/llm/models/{model_id}");

/**
 * Lists providers by descending priority, then name.
 *
 * Errors: INVALID_FIELD for a page_size or page_token out of range.
 */
export const listProviders = /* @__PURE__ */ paged<ListProvidersRequest, ListProvidersResponse, "providers">("GET", "/api/v2/llm/providers", "providers");

/**
 * Creates a provider.
 *
 * Answers HTTP 201.
 *
 * Errors: INVALID_FIELD; ALREADY_EXISTS when the name is taken.
 */
export const createProvider = /* @__PURE__ */ operation<CreateProviderRequest, Provider>("POST", "/api/v2/llm/providers");

/**
 * Returns a provider.
 *
 * Errors: INVALID_FIELD; RESOURCE_NOT_FOUND.
 */
export const getProvider = /* @__PURE__ */ operation<GetProviderRequest, Provider>("GET", "/api/v2/llm/providers/{provider_id}");

/**
 * Changes the given fields of a provider and leaves the others as they are.
 *
 * Errors: INVALID_FIELD; RESOURCE_NOT_FOUND; ALREADY_EXISTS when the new name is taken; ETAG_MISMATCH.
 */
export const updateProvider = /* @__PURE__ */ operation<UpdateProviderRequest, Provider>("PUT", "/api/v2/llm/providers/{provider_id}");

/**
 * Disables a provider: it takes no part in routing until it is enabled again.
 *
 * Nothing is erased; doing it twice is no error.
 *
 * Errors: INVALID_FIELD; RESOURCE_NOT_FOUND; ETAG_MISMATCH.
 */
export const disableProvider = /* @__PURE__ */ operation<DisableProviderRequest, Provider>("DELETE", "/api/v2/llm/providers/{provider_id}");

/**
 * Stores the operator's own key for a provider, encrypted, in place of the one before.
 *
 * It pays for every user without an active key of their own, at providers that need no BYOK. It cannot be read
 * back.
 *
 * Errors: INVALID_FIELD; RESOURCE_NOT_FOUND.
 */
export const setPlatformKey = /* @__PURE__ */ operation<SetPlatformKeyRequest, Provider>("PUT", "/api/v2/llm/providers/{provider_id}/platform-key");

/**
 * Erases the operator's own key for a provider; when there is none, that is no error.
 *
 * Errors: INVALID_FIELD; RESOURCE_NOT_FOUND.
 */
export const deletePlatformKey = /* @__PURE__ */ operation<DeletePlatformKeyRequest, Provider>("DELETE", "/api/v2/llm/providers/{provider_id}/platform-key");

/**
 * Lists routing rules in the order in which they are tried: by descending priority, then name.
 *
 * Errors: INVALID_FIELD for a page_size or page_token out of range.
 */
export const listRoutingRules = /* @__PURE__ */ paged<ListRoutingRulesRequest, ListRoutingRulesResponse, "rules">("GET", "/api/v2/llm/rules", "rules");

/**
 * Creates a routing rule.
 *
 * Answers HTTP 201.
 *
 * Errors: INVALID_FIELD, also for a condition that does not parse, is not of type bool or could take too long,
 * for a provider that does not exist, for a rule without any effect, and for one more than 200 active rules;
 * ALREADY_EXISTS when the name is taken.
 */
export const createRoutingRule = /* @__PURE__ */ operation<CreateRoutingRuleRequest, RoutingRule>("POST", "/api/v2/llm/rules");

/**
 * Returns a routing rule, active or not.
 *
 * Errors: INVALID_FIELD; RESOURCE_NOT_FOUND.
 */
export const getRoutingRule = /* @__PURE__ */ operation<GetRoutingRuleRequest, RoutingRule>("GET", "/api/v2/llm/rules/{rule_id}");

/**
 * Changes the given fields of a routing rule and leaves the others as they are.
 *
 * Errors: INVALID_FIELD, as for CreateRoutingRule; RESOURCE_NOT_FOUND; ALREADY_EXISTS when the new name is
 * taken; ETAG_MISMATCH.
 */
export const updateRoutingRule = /* @__PURE__ */ operation<UpdateRoutingRuleRequest, RoutingRule>("PUT", "/api/v2/llm/rules/{rule_id}");

/**
 * Erases a routing rule and returns it as it was.
 *
 * Decisions that it made still name it.
 *
 * Errors: INVALID_FIELD; RESOURCE_NOT_FOUND; ETAG_MISMATCH.
 */
export const deleteRoutingRule = /* @__PURE__ */ operation<DeleteRoutingRuleRequest, RoutingRule>("DELETE", "/api/v2/llm/rules/{rule_id}");

/**
 * Returns the best model for a request, and what to fall back to.
 *
 * The same request over the same catalogue and settings gives the same answer on every replica.
 *
 * For every user, for themselves; the role service names the user it asks for. Errors: INVALID_FIELD;
 * NO_ELIGIBLE_MODEL; BUDGET_EXCEEDED when the month's budget is used up and the user's settings say `reject`;
 * ROLE_REQUIRED when a user names another user; UNAUTHENTICATED; UNAVAILABLE; DEADLINE_EXCEEDED.
 */
export const route = /* @__PURE__ */ operation<RouteRequest, RouteResponse>("POST", "/api/v2/llm/route");

/**
 * Returns a decision of the last 30 days with the fate of every model of the catalogue: scored how, or excluded
 * why.
 *
 * A decision can be read a moment after it was made.
 *
 * For every user, their own; for the roles admin and service, everyone's. Errors: INVALID_FIELD;
 * RESOURCE_NOT_FOUND when there is no such decision or it is another user's; UNAUTHENTICATED; UNAVAILABLE;
 * DEADLINE_EXCEEDED.
 */
export const getDecision = /* @__PURE__ */ operation<GetDecisionRequest, Decision>("GET", "/api/v2/llm/decisions/{decision_id}");

/** Returns the caller's preferences, or the defaults. */
export const getSettings = /* @__PURE__ */ operation<GetSettingsRequest, Settings>("GET", "/api/v2/llm/settings");

/**
 * Changes the given preferences and leaves the others as they are.
 *
 * Errors: INVALID_FIELD, also when the merged routing_config is not valid as a whole.
 */
export const updateSettings = /* @__PURE__ */ operation<UpdateSettingsRequest, Settings>("PUT", "/api/v2/llm/settings");

/**
 * Sums the usage of the last N UTC days, today included, or of a range of days.
 *
 * For every user, for themselves; the role service names the user. Errors: INVALID_FIELD; ROLE_REQUIRED when a
 * user names another user.
 */
export const getUsage = /* @__PURE__ */ operation<GetUsageRequest, GetUsageResponse>("GET", "/api/v2/llm/usage");

/**
 * Sums the usage of each hour or day of a period, oldest first, hours and days without any usage included.
 *
 * For every user, for themselves; the role service names the user. Errors: INVALID_FIELD; ROLE_REQUIRED when a
 * user names another user.
 */
export const listUsageBuckets = /* @__PURE__ */ operation<ListUsageBucketsRequest, ListUsageBucketsResponse>("GET", "/api/v2/llm/usage/series");

/**
 * Lists single attempts, newest first.
 *
 * Records are kept for as long as the operator has set (`USAGE_RETENTION_DAYS`).
 *
 * For every user, for themselves; the role service names the user. Errors: INVALID_FIELD; ROLE_REQUIRED when a
 * user names another user.
 */
export const listUsageRecords = /* @__PURE__ */ paged<ListUsageRecordsRequest, ListUsageRecordsResponse, "records">("GET", "/api/v2/llm/usage/records", "records");

/**
 * Streams the attempts of a period as CSV (RFC 4180, UTF-8, with a header), newest first.
 *
 * A text that a spreadsheet would take for a formula has an apostrophe before it. An export that cannot be
 * completed ends with a row that says so.
 *
 * For every user, for themselves; the role service names the user. Errors: INVALID_FIELD; ROLE_REQUIRED when a
 * user names another user.
 */
export const exportUsage = /* @__PURE__ */ download<ExportUsageRequest>("GET", "/api/v2/llm/usage/export");
